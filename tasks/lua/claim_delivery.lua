-- Take the receiver's next due delivery. ARGV: receiver, lease_ms, drain (who asks).
-- One drain at a time serves a receiver: a slow one with many rings must not take every thread.
-- Returns {id, fence, url, body, attempts before this one}, or {} when nothing is due or another drains.
local receiver, now = ARGV[1], now_ms()
local drain = 'lh:drain:' .. receiver
local other = redis.call('GET', drain)
if other and other ~= ARGV[3] then return {} end
local due = 'lh:receiver:' .. receiver
local id = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', 'lh:receivers', first[2], receiver)
  else
    redis.call('ZREM', 'lh:receivers', receiver)
  end
  redis.call('DEL', drain)
  return {}
end
redis.call('SET', drain, ARGV[3], 'PX', ARGV[2])
redis.call('ZADD', due, now + ARGV[2], id)
local fence = redis.call('HINCRBY', delivery_key(id), 'fence', 1)
redis.call('HSET', delivery_key(id), 'state', 'sending')
local row = redis.call('HMGET', delivery_key(id), 'url', 'body', 'attempts')
return {id, fence, row[1], row[2], row[3]}
