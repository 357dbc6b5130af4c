-- Take the receiver's next due delivery. ARGV: receiver, lease_ms, drain (who asks), limit,
-- longest_retention_ms.
-- At most `limit` drains at a time serve a receiver that answered when it was last tried, and one any other: a
-- receiver with many rings must not take every thread. While its circuit is open there is nothing to take; afterwards one drain
-- probes it.
-- Returns {id, fence, now, url, body, attempts before this one, kind, job, account, endpoint}, or {} when there
-- is nothing to take now, or others see to it.
even_if_full()
local receiver, now = ARGV[1], now_ms()
local drains, due = 'lh:drains:' .. receiver, 'lh:receiver:' .. receiver

local function leave(next_ms)
  if next_ms then
    redis.call('ZADD', 'lh:receivers', next_ms, receiver)
  else
    redis.call('ZREM', 'lh:receivers', receiver)
  end
  redis.call('ZREM', drains, ARGV[3])
  return {}
end

-- Also of a receiver that is never tried: the age of a letter must not depend on how many wait with it. Those
-- that were never tried are in the order of their age.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 100)) do
  local row = redis.call('HMGET', delivery_key(id), 'created_ms', 'state', 'job')
  if not row[1] then
    redis.call('ZREM', due, id)
  elseif now - row[1] <= DELIVERY_LIFE_MS then
    break
  else
    settle(id, 'dead', now, ARGV[5])
    schedule_head(row[3], now)
  end
end

local circuit = redis.call('HMGET', 'lh:circuit:' .. receiver, 'health', 'open_until_ms')
local open_until = tonumber(circuit[2] or '0')
if open_until > now then return leave(open_until) end

redis.call('ZREMRANGEBYSCORE', drains, '-inf', now)
local others = redis.call('ZCARD', drains)
if redis.call('ZSCORE', drains, ARGV[3]) then others = others - 1 end
local limit = (circuit[1] == 'fast' or circuit[1] == 'slow') and tonumber(ARGV[4]) or 1
if others >= limit then
  redis.call('ZREM', drains, ARGV[3])
  return {}
end

local id = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return leave(redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]) end
redis.call('ZADD', drains, now + ARGV[2], ARGV[3])
redis.call('PEXPIRE', drains, ARGV[2])
redis.call('ZADD', due, now + ARGV[2], id)
local fence = redis.call('HINCRBY', delivery_key(id), 'fence', 1)
if redis.call('HGET', delivery_key(id), 'state') == 'sending' then
  -- Its last attempt was never settled: whoever made it has died, or took longer than its lease.
  redis.call('RPUSH', delivery_key(id) .. ':attempts',
    cjson.encode({at_ms = now, status = 0, duration_ms = tonumber(ARGV[2]), error = 'the attempt was lost'}))
  redis.call('HINCRBY', delivery_key(id), 'attempts', 1)
end
redis.call('HSET', delivery_key(id), 'state', 'sending')
local row = redis.call('HMGET', delivery_key(id), 'url', 'body', 'attempts', 'kind', 'job', 'account', 'endpoint')
return {id, fence, now, unpack(row)}
