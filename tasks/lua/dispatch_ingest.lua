-- Hand out ingest stages for free slots, fairly over accounts (fair.lua). ARGV: dispatch_ms.
-- Returns job ids to ring for.
-- One slot is always tried, so that a message waits for the first worker that comes up.
even_if_full()
local now, rung = now_ms(), {}
local slots = redis.call('ZCOUNT', 'lh:slots:ingest', now, '+inf')
local free = math.max(slots, 1) - redis.call('ZCARD', leases_key('ingest'))
while #rung < free do
  local turn = take_turn('ingest')
  if not turn then break end
  redis.call('ZADD', leases_key('ingest'), now + ARGV[1], turn.job .. '/ingest')
  pay_ingest(turn, redis.call('HGET', job_key(turn.job), 'weight'))
  table.insert(rung, turn.job)
end
return rung
