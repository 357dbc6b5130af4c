-- Start the next run of a job that has failed. ARGV: job, dispatch_ms.
-- Chunks that are done are kept and told again; those that are dead or were never done are done anew. Whoever
-- still works for the last run has lost its lease. Of a batch, the recordings that did not succeed begin again.
-- Returns 'queued', 'complete' (all chunks are done: ring assemble), 'refused' (its input was not valid) or
-- 'other' (it has not failed).
local job, now = ARGV[1], now_ms()
local first = fields(job, 'status', 'request', 'parts')
if first[1] ~= 'failed' then return 'other' end
if first[2] == '' then return 'refused' end

local function keep(id)
  redis.call('PERSIST', job_key(id))
  local once = redis.call('HGET', job_key(id), 'once')
  if once then redis.call('PERSIST', once_key(once)) end
  for _, part in ipairs({'chunks', 'results', 'leases', 'workers'}) do redis.call('PERSIST', job_key(id, part)) end
end

-- Whoever has a lease has lost it.
local function revoke(id)
  local leases = job_key(id, 'leases')
  for _, name in ipairs(redis.call('HKEYS', leases)) do
    if string.find(name, ':') then redis.call('HDEL', leases, name) end
  end
  for _, name in ipairs(redis.call('HKEYS', leases)) do
    -- Its starts are counted anew, and its fence goes on.
    redis.call('HSET', leases, name .. ':before', redis.call('HINCRBY', leases, name, 1))
  end
end

local function requeue(id)
  local was, ttl_ms = unpack(fields(id, 'status', 'ttl_ms'))
  redis.call('HSET', job_key(id), 'status', 'queued', 'created_ms', now, 'deadline_ms', now + ttl_ms, 'emitted', 0,
    'seq', 0)
  redis.call('HINCRBY', job_key(id), 'run', 1)
  redis.call('HDEL', job_key(id), 'started_ms', 'announced_ms', 'finished_ms', 'code', 'error', 'meta', 'cursor',
    'progress_ms', 'progress_done_ms')
  recount(id, was, 'queued')
  redis.call('ZADD', 'lh:deadlines', now + ttl_ms, id)
  redis.call('ZREM', 'lh:sweep', id)
  redis.call('DEL', job_key(id, 'events'))
  keep(id)
  revoke(id)
end

local function begin_anew(id)
  requeue(id)
  redis.call('DEL', job_key(id, 'dead'), job_key(id, 'pending'), job_key(id, 'inflight'))
  -- Few calls, since there may be ten thousand chunks, and everybody waits for this script.
  local done, missing = {}, {}
  for _, index in ipairs(redis.call('HKEYS', job_key(id, 'results'))) do done[index] = true end
  for _, index in ipairs(redis.call('HKEYS', job_key(id, 'chunks'))) do
    if not done[index] then
      table.insert(missing, index)
      table.insert(missing, index)
    end
  end
  for first_one = 1, #missing, 1000 do
    redis.call('ZADD', job_key(id, 'pending'), unpack(missing, first_one, math.min(first_one + 999, #missing)))
  end
  emit(id)
  if complete(id, now, ARGV[2]) then return 'complete' end
  if redis.call('HGET', job_key(id), 'sealed') ~= '1' then line_up(id, 'ingest') end
  line_up(id, 'transcribe')
  return 'queued'
end

-- The batch's own numbers are those of its recordings. Whether any of them begins again.
local function begin_parts_anew()
  requeue(job)
  local open, unplanned, done_ms, chunks_done, planned_ms, total = 0, 0, 0, 0, 0, 0
  for part = 0, first[3] - 1 do
    local id = part_id(job, part)
    local row = fields(id, 'status', 'sealed', 'done_ms', 'duration_ms', 'total')
    if row[1] == 'succeeded' then
      keep(id)
      redis.call('HSET', job_key(id), 'emitted', 0)
      redis.call('DEL', job_key(id, 'events'))
      emit(id)
      redis.call('XADD', job_key(job, 'events'), '*', 'kind', 'end', 'part', part)
    else
      open = open + 1
      begin_anew(id)
    end
    done_ms, chunks_done = done_ms + (row[3] or 0), chunks_done + redis.call('HLEN', job_key(id, 'results'))
    if row[2] == '1' then
      planned_ms, total = planned_ms + row[4], total + row[5]
    else
      unplanned = unplanned + 1
    end
  end
  redis.call('HDEL', job_key(job), 'total', 'duration_ms')
  redis.call('HSET', job_key(job), 'open', open, 'unplanned', unplanned, 'done_ms', done_ms, 'chunks_done', chunks_done,
    'planned_ms', planned_ms, 'planned', total)
  if unplanned == 0 then redis.call('HSET', job_key(job), 'total', total, 'duration_ms', planned_ms) end
  return open > 0
end

redis.call('ZADD', 'lh:jobs', now, job)
wake(job)
if not first[3] then return begin_anew(job) end
if begin_parts_anew() then return 'queued' end
redis.call('ZADD', leases_key('assemble'), 'NX', now + ARGV[2], job .. '/assemble')
return 'complete'
