-- A new job, once. ARGV: job, endpoint, ttl_ms, then field/value pairs of the job's row.
-- Returns 1, or 0 if the job exists already.
local job, endpoint, now = ARGV[1], ARGV[2], now_ms()
if redis.call('EXISTS', job_key(job)) == 1 then return 0 end
redis.call('HSET', job_key(job), 'schema', 1, 'status', 'queued', 'run', 1, 'endpoint', endpoint,
  'created_ms', now, 'ttl_ms', ARGV[3], 'deadline_ms', now + ARGV[3], unpack(ARGV, 4))
recount(job, nil, 'queued')
redis.call('ZADD', 'lh:jobs', now, job)
redis.call('ZADD', 'lh:deadlines', now + ARGV[3], job)
-- A refused input is a job too, which only tells its error: nobody is to work on it.
if redis.call('HGET', job_key(job), 'request') ~= '' then line_up(job, 'ingest') end
return 1
