-- Send a delivery once more, before all others and from the start of its schedule, because a person asked for
-- it. ARGV: id, account.
-- One that is waiting becomes due now, if it is its turn. A circuit that is open lets it through as a probe.
-- Returns the receiver to ring for, or '' where the account has no such delivery.
local id, now = ARGV[1], now_ms()
local row = redis.call('HMGET', delivery_key(id), 'account', 'state', 'receiver')
if row[1] ~= ARGV[2] then return '' end
local receiver = row[3]
if row[2] == 'waiting' then
  redis.call('ZADD', 'lh:receiver:' .. receiver, 'XX', 0, id)
elseif row[2] ~= 'sending' then
  redis.call('HSET', delivery_key(id), 'state', 'waiting', 'attempts', 0, 'created_ms', now)
  redis.call('HDEL', delivery_key(id), 'settled_ms')
  redis.call('PERSIST', delivery_key(id))
  redis.call('PERSIST', delivery_key(id) .. ':attempts')
  redis.call('ZREM', 'lh:dead:' .. row[1], id)
  schedule(id, 0)
end
if redis.call('HEXISTS', 'lh:circuit:' .. receiver, 'open_until_ms') == 1 then
  redis.call('HSET', 'lh:circuit:' .. receiver, 'open_until_ms', now)
end
redis.call('ZADD', 'lh:receivers', 'LT', now, receiver)
return receiver
