-- The terminal state, its event and its delivery, in one step, once a run.
-- ARGV: job, stage ('' where no lease is needed, 'queued': only if nobody has begun), fence, status, code, error, meta (JSON),
--       body, body if transcription was never announced, blob_delay_ms, retention_ms.
-- Returns {1, receivers to ring for} or {0, {}}: it had ended, or the lease is another's.
local job, stage, status, now = ARGV[1], ARGV[2], ARGV[4], now_ms()
local row = fields(job, 'status', 'announced_ms')
local old = row[1]
if old ~= 'queued' and old ~= 'running' then return {0, {}} end
if stage == 'queued' then
  if old ~= 'queued' then return {0, {}} end
elseif stage ~= '' and not holds(job, stage, ARGV[3]) then
  return {0, {}}
end

for _, index in ipairs(redis.call('SMEMBERS', job_key(job, 'inflight'))) do
  redis.call('ZREM', leases_key('transcribe'), job .. '/' .. index)
end
redis.call('ZREM', leases_key('ingest'), job .. '/ingest')
redis.call('ZREM', leases_key('assemble'), job .. '/assemble')
redis.call('ZREM', 'lh:ready:ingest', job)
redis.call('ZREM', 'lh:ready:transcribe', job)
redis.call('ZREM', 'lh:deadlines', job)
redis.call('DEL', job_key(job, 'pending'), job_key(job, 'inflight'), job_key(job, 'partial'))

redis.call('HSET', job_key(job), 'status', status, 'finished_ms', now, 'code', ARGV[5], 'error', ARGV[6],
  'meta', ARGV[7])
recount(job, old, status)
redis.call('XADD', job_key(job, 'events'), '*', 'kind', 'terminal', 'status', status)
local receivers = {}
receivers[1] = post(job, 'terminal', row[2] and ARGV[8] or ARGV[9], now, ARGV[11])
receivers[#receivers + 1] = call_back(job, now, ARGV[11])
-- Audio goes when its job has succeeded, else with everything else of the job.
redis.call('ZADD', 'lh:sweep', now + ARGV[10], job)
for _, part in ipairs({'chunks', 'results', 'dead', 'leases', 'events', 'workers'}) do
  redis.call('PEXPIRE', job_key(job, part), ARGV[11])
end
redis.call('PEXPIRE', job_key(job), ARGV[11])
wake(job)
return {1, receivers}
