-- Renew a lease. ARGV: job, stage, unit, fence, lease_ms, done_ms (how much of a chunk is transcribed),
-- window (first and last number of the windows in hand, or '').
-- Returns 1 renewed, 0 lost to another attempt, -1 the job has ended: stop.
even_if_full()
local job, stage, unit = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', job_key(job), 'status') ~= 'running' then return -1 end
if not holds(job, unit, ARGV[4]) then return 0 end
if not redis.call('ZSCORE', leases_key(stage), job .. '/' .. unit) then return 0 end
redis.call('ZADD', leases_key(stage), now_ms() + ARGV[5], job .. '/' .. unit)
-- Not of a chunk that is done, or back in line: its beat may come late.
if stage == 'transcribe' then
  redis.call('HSET', job_key(job, 'partial'), unit, ARGV[6])
  redis.call('HSET', job_key(job, 'leases'), unit .. ':window', ARGV[7])
end
return 1
