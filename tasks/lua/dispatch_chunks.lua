-- Hand out chunks for free slots, fairly over accounts and over the jobs of each (fair.lua). ARGV: dispatch_ms.
-- About two messages a live slot are out at a time, in total: the broker's list stays short, and a
-- three-chunk job never waits behind four hundred chunks of another.
-- Returns {job, index, start_ms, end_ms, total ('' until the plan is sealed)} of each.
even_if_full()
local now, rung = now_ms(), {}
local slots = redis.call('ZCOUNT', 'lh:slots:transcribe', now, '+inf')
local free = math.max(2 * slots, 2) - redis.call('ZCARD', leases_key('transcribe'))

-- Until its language is pinned, only a job's lowest unfinished chunk is given out.
local function next_chunk(job, pinned)
  if not workable(job) then return nil end
  if pinned ~= '1' and redis.call('SCARD', job_key(job, 'inflight')) > 0 then return nil end
  return redis.call('ZPOPMIN', job_key(job, 'pending'))[1]
end

while free > 0 do
  local turn = take_turn('transcribe')
  if not turn then break end
  local job = turn.job
  local row = fields(job, 'pinned', 'virtual_ms', 'weight', 'total')
  local index = next_chunk(job, row[1])
  if index then
    redis.call('SADD', job_key(job, 'inflight'), index)
    redis.call('ZADD', leases_key('transcribe'), now + ARGV[1], job .. '/' .. index)
    local chunk = cjson.decode(redis.call('HGET', job_key(job, 'chunks'), index))
    local stays = row[1] == '1' and redis.call('EXISTS', job_key(job, 'pending')) == 1
    pay_chunk(turn, chunk.end_ms - chunk.start_ms, row[3], row[2], stays)
    table.insert(rung, {job, index, chunk.start_ms, chunk.end_ms, row[4] or ''})
    free = free - 1
  end
end
return rung
