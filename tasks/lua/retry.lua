-- Start the next run of a job that has failed. ARGV: job, dispatch_ms.
-- Chunks that are done are kept and told again; those that are dead or were never done are done anew. Whoever
-- still works for the last run has lost its lease.
-- Returns 'queued', 'complete' (all chunks are done: ring assemble), 'refused' (its input was not valid) or
-- 'other' (it has not failed, or is a batch).
local job, now = ARGV[1], now_ms()
local row = fields(job, 'status', 'request', 'ttl_ms', 'sealed', 'parts')
if row[1] ~= 'failed' or row[5] then return 'other' end
if row[2] == '' then return 'refused' end

redis.call('HSET', job_key(job), 'status', 'queued', 'created_ms', now, 'deadline_ms', now + row[3], 'emitted', 0,
  'seq', 0)
redis.call('HINCRBY', job_key(job), 'run', 1)
redis.call('HDEL', job_key(job), 'started_ms', 'announced_ms', 'finished_ms', 'code', 'error', 'meta', 'cursor',
  'progress_ms', 'progress_done_ms')
recount(job, 'failed', 'queued')
redis.call('ZADD', 'lh:jobs', now, job)
redis.call('ZADD', 'lh:deadlines', now + row[3], job)
redis.call('ZREM', 'lh:sweep', job)
redis.call('DEL', job_key(job, 'dead'), job_key(job, 'events'), job_key(job, 'pending'), job_key(job, 'inflight'))
redis.call('PERSIST', job_key(job))
for _, part in ipairs({'chunks', 'results', 'leases', 'workers'}) do redis.call('PERSIST', job_key(job, part)) end

local leases = job_key(job, 'leases')
for _, name in ipairs(redis.call('HKEYS', leases)) do
  if string.find(name, ':') then
    redis.call('HDEL', leases, name)
  else
    -- Its starts are counted anew, and its fence goes on.
    redis.call('HSET', leases, name .. ':before', redis.call('HINCRBY', leases, name, 1))
  end
end
for _, index in ipairs(redis.call('HKEYS', job_key(job, 'chunks'))) do
  if redis.call('HEXISTS', job_key(job, 'results'), index) == 0 then
    redis.call('ZADD', job_key(job, 'pending'), index, index)
  end
end
emit(job)
wake(job)
if complete(job, now, ARGV[2]) then return 'complete' end
if row[4] ~= '1' then line_up(job, 'ingest') end
line_up(job, 'transcribe')
return 'queued'
