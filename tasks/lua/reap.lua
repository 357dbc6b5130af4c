-- Put back what was lost. ARGV: dispatch_ms, listing_ms (how long a job stays in the list of jobs),
-- unseen_ms (nobody looked for so long: no lease of a handler is over), away_ms (nor one of an attempt, which
-- gets another grace_ms), grace_ms.
-- Returns {jobs to ring assemble for, receivers with due deliveries, jobs past a deadline, jobs whose
-- blobs may go, jobs whose handler is gone}. Ingests and chunks put back here are handed out by the dispatch scripts.
even_if_full()
local now = now_ms()

local function expired(stage)
  return redis.call('ZRANGEBYSCORE', leases_key(stage), '-inf', now, 'LIMIT', 0, 200)
end

local gap = now - tonumber(redis.call('GET', 'lh:reaped') or now)
redis.call('SET', 'lh:reaped', now)
-- Where Redis was away, no attempt could renew its lease: each has the time to, once it is back.
if gap > tonumber(ARGV[4]) then
  for _, stage in ipairs({'ingest', 'transcribe', 'assemble'}) do
    local members = expired(stage)
    while members[1] do
      for _, member in ipairs(members) do redis.call('ZADD', leases_key(stage), now + ARGV[5], member) end
      members = expired(stage)
    end
  end
end
for _, member in ipairs(expired('transcribe')) do
  local job, index = parts(member)
  if redis.call('SISMEMBER', job_key(job, 'inflight'), index) == 1 then
    put_back(job, index)
  else
    redis.call('ZREM', leases_key('transcribe'), member)
  end
end
for _, member in ipairs(expired('ingest')) do
  local job = parts(member)
  drop_lease(job, 'ingest', 'ingest')
  line_up(job, 'ingest')
end
-- Where Longhand before accounts had shares left jobs in line.
for _, stage in ipairs({'ingest', 'transcribe'}) do
  local left = redis.call('ZPOPMIN', 'lh:ready:' .. stage, 200)
  for at = 1, #left, 2 do line_up(left[at], stage) end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', 'lh:aside', '-inf', now, 'LIMIT', 0, 200)) do
  local job, stage = parts(member)
  redis.call('ZREM', 'lh:aside', member)
  -- A worker that knows its form may have it by now.
  if not redis.call('ZSCORE', leases_key('ingest'), job .. '/' .. stage) then line_up(job, stage) end
end
local assemble = {}
for _, member in ipairs(expired('assemble')) do
  local job = parts(member)
  redis.call('HDEL', job_key(job, 'leases'), 'assemble:owner')
  redis.call('ZADD', leases_key('assemble'), now + ARGV[1], member)
  table.insert(assemble, job)
end

-- A rung receiver is not due again before its doorbell could have been lost.
local receivers = redis.call('ZRANGEBYSCORE', 'lh:receivers', '-inf', now, 'LIMIT', 0, 200)
for _, receiver in ipairs(receivers) do
  redis.call('ZADD', 'lh:receivers', now + 5000, receiver)
end

-- Jobs whose time in a set is over; those that have ended leave it.
local function over(key)
  local found = {}
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 200)) do
    local status = redis.call('HGET', job_key(job), 'status')
    if status == 'queued' or status == 'running' then
      table.insert(found, job)
    else
      redis.call('ZREM', key, job)
    end
  end
  return found
end

local late = over('lh:deadlines')
local sweep = {}
for _, job in ipairs(redis.call('ZRANGEBYSCORE', 'lh:sweep', '-inf', now, 'LIMIT', 0, 20)) do
  local status = redis.call('HGET', job_key(job), 'status')
  if status == 'queued' or status == 'running' then
    -- Two requests brought audio for it, and one of them has made it.
    redis.call('ZREM', 'lh:sweep', job)
  else
    table.insert(sweep, job)
  end
end
redis.call('ZREMRANGEBYSCORE', 'lh:jobs', '-inf', now - ARGV[2])
for _, stage in ipairs({'ingest', 'transcribe', 'assemble', 'deliver'}) do
  redis.call('ZREMRANGEBYSCORE', 'lh:slots:' .. stage, '-inf', now)
end
-- Where Redis was away, no handler could renew its lease: each has the time to, once it is back. How long its
-- lease is, its own settings say, which are not here.
local HANDLER_GRACE_MS = 30000
if gap > tonumber(ARGV[3]) then
  for _, job in ipairs(redis.call('ZRANGE', 'lh:attended', 0, -1)) do
    redis.call('ZADD', 'lh:attended', 'GT', now + HANDLER_GRACE_MS, job)
  end
end
return {assemble, receivers, late, sweep, over('lh:attended')}
