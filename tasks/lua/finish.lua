-- The terminal state, its event and its delivery, in one step, once a run.
-- ARGV: job, unit whose lease is needed ('': none is, 'queued': only if nobody has begun, 'unattended': only if
--       the lease of its handler is over, 'late': only past its deadline, 'refused': only if its input was),
--       fence, status, code, error, meta (JSON), body, body if transcription was never announced,
--       longest_retention_ms.
-- Returns {1, receivers to ring for} or {0, {}}: it had ended, or the lease is another's. The parts of a batch
-- end with it; once the last of them has ended by itself, the reaper rings for the batch to be assembled.
even_if_full()
local job, stage, status, now = ARGV[1], ARGV[2], ARGV[4], now_ms()
local row = fields(job, 'status', 'announced_ms', 'parts', 'batch', 'part', 'retention_ms', 'sealed', 'done_ms')
local retention_ms = row[6] or ARGV[10]
local old = row[1]
if old ~= 'queued' and old ~= 'running' then return {0, {}} end
if stage == 'queued' then
  if old ~= 'queued' then return {0, {}} end
elseif stage == 'unattended' then
  if tonumber(redis.call('ZSCORE', 'lh:attended', job) or now + 1) > now then return {0, {}} end
elseif stage == 'late' then
  if tonumber(redis.call('ZSCORE', 'lh:deadlines', job) or now + 1) > now then return {0, {}} end
elseif stage == 'refused' then
  if redis.call('HGET', job_key(job), 'request') ~= '' then return {0, {}} end
elseif stage ~= '' and not holds(job, stage, ARGV[3]) then
  return {0, {}}
end

-- A job that fails has told of nothing behind the first chunk that is missing. Now that nothing will come any
-- more, whatever was finished can be read, in order.
local function tell_the_rest(id)
  local of, rest = fields(id, 'emitted', 'duration_ms', 'batch', 'part'), {}
  for _, index in ipairs(redis.call('HKEYS', job_key(id, 'results'))) do
    if tonumber(index) >= tonumber(of[1] or '0') then table.insert(rest, tonumber(index)) end
  end
  table.sort(rest)
  for _, index in ipairs(rest) do tell(id, index, of[2], of[3], of[4]) end
end

-- Nobody works on it any more.
local function close(id, was)
  for _, index in ipairs(redis.call('SMEMBERS', job_key(id, 'inflight'))) do
    redis.call('ZREM', leases_key('transcribe'), id .. '/' .. index)
  end
  redis.call('ZREM', leases_key('ingest'), id .. '/ingest')
  redis.call('ZREM', leases_key('assemble'), id .. '/assemble')
  leave_line(id, 'ingest')
  leave_line(id, 'transcribe')
  redis.call('ZREM', 'lh:aside', id .. '/ingest', id .. '/transcribe')
  redis.call('ZREM', 'lh:deadlines', id)
  redis.call('ZREM', 'lh:attended', id)
  redis.call('DEL', job_key(id, 'pending'), job_key(id, 'inflight'), job_key(id, 'partial'))
  redis.call('HSET', job_key(id), 'status', status, 'finished_ms', now, 'code', ARGV[5], 'error', ARGV[6])
  recount(id, was, status)
  redis.call('XADD', job_key(id, 'events'), '*', 'kind', 'terminal', 'status', status)
end

-- Everything about it has a TTL. Audio goes when all of it is transcribed, else with the rest.
local function expire(id)
  for _, part in ipairs({'chunks', 'results', 'dead', 'leases', 'events', 'workers'}) do
    redis.call('PEXPIRE', job_key(id, part), retention_ms)
  end
  redis.call('PEXPIRE', job_key(id), retention_ms)
  local once = redis.call('HGET', job_key(id), 'once')
  if once then redis.call('PEXPIRE', once_key(once), retention_ms) end
  redis.call('ZADD', 'lh:sweep', transcribed(id) and now or now + retention_ms, id)
end

if status == 'failed' then
  tell_the_rest(job)
  for part = 0, tonumber(row[3] or '0') - 1 do
    local was = redis.call('HGET', job_key(part_id(job, part)), 'status')
    if was == 'queued' or was == 'running' then tell_the_rest(part_id(job, part)) end
  end
end
close(job, old)
redis.call('HSET', job_key(job), 'meta', ARGV[7])
local receivers = {}
receivers[1] = post(job, 'terminal', row[2] and ARGV[8] or ARGV[9], now, ARGV[10])
receivers[#receivers + 1] = call_back(job, now, ARGV[10])
local batch = row[4]
-- It waits in the queue where this one had been started too often to be started in this run.
local batch_status = batch and redis.call('HGET', job_key(batch), 'status')
local in_batch = batch_status == 'running' or batch_status == 'queued'
-- A batch needs its parts until it has ended, too, and the audio of one that failed for its next run.
if not in_batch then
  expire(job)
elseif transcribed(job) then
  redis.call('ZADD', 'lh:sweep', now, job)
end
for part = 0, tonumber(row[3] or '0') - 1 do
  local id = part_id(job, part)
  local was = redis.call('HGET', job_key(id), 'status')
  if was == 'queued' or was == 'running' then close(id, was) end
  -- It is told of for as long as its batch.
  expire(id)
end
wake(job)

if not in_batch then return {1, receivers} end
if row[7] ~= '1' then planned(batch, redis.call('HLEN', job_key(job, 'results')), row[8] or '0') end
redis.call('XADD', job_key(batch, 'events'), '*', 'kind', 'end', 'part', row[5])
wake(batch)
if redis.call('HINCRBY', job_key(batch), 'open', -1) > 0 then return {1, receivers} end
redis.call('ZADD', leases_key('assemble'), 'NX', now, batch .. '/assemble')
return {1, receivers}
