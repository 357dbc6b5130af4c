-- Give a lease back unfinished.
-- ARGV: job, stage, unit, fence, charge (1: this attempt failed, 0: bad luck), delay_ms, max_attempts,
--       final (1: no other attempt can help), reason, dispatch_ms.
-- Returns 'again' | 'exhausted' (a stage of the job has no attempt left: fail the job)
--       | 'dead' (the chunk is given up) | 'complete' (so it is, and it was the last: ring assemble) | 'lost'.
even_if_full()
local job, stage, unit, now = ARGV[1], ARGV[2], ARGV[3], now_ms()
local leases = job_key(job, 'leases')
if redis.call('HGET', job_key(job), 'status') ~= 'running' or not holds(job, unit, ARGV[4]) then return 'lost' end
if stage == 'transcribe' and redis.call('HEXISTS', job_key(job, 'dead'), unit) == 1 then
  return complete(job, now, ARGV[10]) and 'complete' or 'dead'
end
-- The fence outlives the lease; without an owner this is the second run of a release whose answer was lost.
if redis.call('HEXISTS', leases, unit .. ':owner') == 0 then return 'lost' end
-- Whoever fails in order breaks a row of deaths.
redis.call('HDEL', leases, unit .. ':suspect', unit .. ':deaths')
local failures = tonumber(redis.call('HINCRBY', leases, unit .. ':failures', ARGV[5]))
local over = ARGV[8] == '1' or failures >= tonumber(ARGV[7])
if over then
  if stage ~= 'transcribe' then return 'exhausted' end
  bury(job, unit, ARGV[9])
  return complete(job, now, ARGV[10]) and 'complete' or 'dead'
end
redis.call('HDEL', leases, unit .. ':owner')
if stage == 'transcribe' and ARGV[6] == '0' then
  put_back(job, unit)
else
  -- It stays in flight without an owner until the delay is over; the reaper then rings again.
  redis.call('ZADD', leases_key(stage), now + ARGV[6], job .. '/' .. unit)
end
return 'again'
