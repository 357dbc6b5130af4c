-- Hand out ingest stages for free slots. ARGV: dispatch_ms. Returns job ids to ring for.
-- One slot is always tried, so that a message waits for the first worker that comes up.
local now, rung = now_ms(), {}
local slots = redis.call('ZCOUNT', 'lh:slots:ingest', now, '+inf')
local free = math.max(slots, 1) - redis.call('ZCARD', leases_key('ingest'))
while #rung < free do
  local job = redis.call('ZPOPMIN', 'lh:ready:ingest')[1]
  if not job then break end
  redis.call('ZADD', leases_key('ingest'), now + ARGV[1], job .. '/ingest')
  table.insert(rung, job)
end
return rung
