-- Hand out chunks for free slots, fairly over jobs. ARGV: dispatch_ms.
-- About two messages a live slot are out at a time, in total: the broker's list stays short, and a
-- three-chunk job never waits behind four hundred chunks of another.
-- Returns {job, index, start_ms, end_ms, total ('' until the plan is sealed)} of each.
local now, rung = now_ms(), {}
local slots = redis.call('ZCOUNT', 'lh:slots:transcribe', now, '+inf')
local free = math.max(2 * slots, 2) - redis.call('ZCARD', leases_key('transcribe'))

-- Until its language is pinned, only a job's lowest unfinished chunk is given out.
local function next_chunk(job)
  if not workable(job) then return nil end
  if redis.call('HGET', job_key(job), 'pinned') ~= '1' and redis.call('SCARD', job_key(job, 'inflight')) > 0 then return nil end
  return redis.call('ZPOPMIN', job_key(job, 'pending'))[1]
end

while free > 0 do
  local popped = redis.call('ZPOPMIN', 'lh:ready:transcribe')
  local job = popped[1]
  if not job then break end
  local index = next_chunk(job)
  if index then
    redis.call('SET', 'lh:clock:transcribe', popped[2])
    redis.call('SADD', job_key(job, 'inflight'), index)
    redis.call('ZADD', leases_key('transcribe'), now + ARGV[1], job .. '/' .. index)
    local chunk = cjson.decode(redis.call('HGET', job_key(job, 'chunks'), index))
    local cost = tonumber(redis.call('HGET', job_key(job), 'cost') or '1')
    redis.call('HSET', job_key(job), 'virtual_ms', popped[2] + cost * (chunk.end_ms - chunk.start_ms))
    line_up(job, 'transcribe')
    table.insert(rung, {job, index, chunk.start_ms, chunk.end_ms,
      redis.call('HGET', job_key(job), 'total') or ''})
    free = free - 1
  end
end
return rung
