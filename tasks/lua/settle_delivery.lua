-- One attempt of a delivery has ended.
-- ARGV: id, fence, outcome ('delivered' | 'retry' | 'dead' | 'gone'), delay_ms, attempt (JSON), retention_ms.
-- 'gone' (HTTP 410) ends all of the job's deliveries. Returns the delivery's state, or 'lost'.
local id, outcome, now = ARGV[1], ARGV[3], now_ms()
local row = redis.call('HMGET', delivery_key(id), 'fence', 'job', 'state')
if row[1] ~= ARGV[2] or row[3] ~= 'sending' then return 'lost' end
local job = row[2]
redis.call('RPUSH', delivery_key(id) .. ':attempts', ARGV[5])
redis.call('HINCRBY', delivery_key(id), 'attempts', 1)
redis.call('HSET', delivery_key(id), 'state', 'waiting')

local state = outcome
if outcome == 'retry' then
  state = 'waiting'
  local newest = redis.call('LINDEX', job_key(job, 'outbox'), -1)
  if newest ~= id and overtaken(id, redis.call('HGET', delivery_key(newest), 'kind')) then
    state = 'superseded'
  end
end
if state == 'waiting' then
  schedule(id, now + ARGV[4])
  return state
end
settle(id, state, now, ARGV[6])
if outcome == 'gone' then
  for _, later in ipairs(redis.call('LRANGE', job_key(job, 'outbox'), 0, -1)) do
    settle(later, 'gone', now, ARGV[6])
  end
  redis.call('HDEL', job_key(job), 'webhook_url')
end
schedule_head(job, now)
return state
