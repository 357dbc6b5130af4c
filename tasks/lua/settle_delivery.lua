-- One attempt of a delivery has ended.
-- ARGV: id, fence, outcome ('delivered' | 'retry' | 'dead' | 'gone'), delay_ms, attempt (JSON),
--       longest_retention_ms, health of the receiver ('fast' | 'slow' | 'down'; 'unknown': the attempt never got
--       to it), failures that open its circuit, then how long the circuit is open the first, second... time in a
--       row, ms.
-- 'gone' (HTTP 410) ends all of the job's events. Returns the delivery's state, or 'lost'.
even_if_full()
local id, outcome, now = ARGV[1], ARGV[3], now_ms()
local row = redis.call('HMGET', delivery_key(id), 'fence', 'job', 'state', 'receiver', 'created_ms')
if row[1] ~= ARGV[2] or row[3] ~= 'sending' then return 'lost' end
local job, receiver = row[2], row[4]
redis.call('RPUSH', delivery_key(id) .. ':attempts', ARGV[5])
redis.call('HINCRBY', delivery_key(id), 'attempts', 1)
redis.call('HSET', delivery_key(id), 'state', 'waiting')

-- A receiver that fails again and again is left alone for a while; what waits for it uses up no attempts.
local circuit = 'lh:circuit:' .. receiver
if ARGV[7] == 'down' then
  local opened = tonumber(redis.call('HGET', circuit, 'opened') or '0')
  if redis.call('HINCRBY', circuit, 'failures', 1) >= tonumber(ARGV[8]) or opened > 0 then
    opened = redis.call('HINCRBY', circuit, 'opened', 1)
    redis.call('HSET', circuit, 'open_until_ms', now + ARGV[math.min(8 + opened, #ARGV)])
  end
elseif ARGV[7] ~= 'unknown' then
  redis.call('DEL', circuit)
end
if ARGV[7] ~= 'unknown' then redis.call('HSET', circuit, 'health', ARGV[7]) end
redis.call('PEXPIRE', circuit, DELIVERY_LIFE_MS)

local position = redis.call('LPOS', job_key(job, 'outbox'), id)
local state = outcome
if outcome == 'retry' then
  state = 'waiting'
  local newest = redis.call('LINDEX', job_key(job, 'outbox'), -1)
  if position and newest ~= id and overtaken(id, redis.call('HGET', delivery_key(newest), 'kind')) then
    state = 'superseded'
  elseif now + ARGV[4] - row[5] > DELIVERY_LIFE_MS then
    state = 'dead'
  end
end
if state == 'waiting' then
  schedule(id, now + ARGV[4])
  return state
end
settle(id, state, now, ARGV[6])
if position then
  if outcome == 'gone' then
    for _, later in ipairs(redis.call('LRANGE', job_key(job, 'outbox'), 0, -1)) do
      settle(later, 'gone', now, ARGV[6])
    end
    redis.call('HDEL', job_key(job), 'webhook_url')
  end
  schedule_head(job, now)
end
return state
