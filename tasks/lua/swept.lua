-- The audio of a job is deleted. ARGV: job.
-- It is looked for again when everything else about the job goes: an attempt that had lost may have stored some
-- meanwhile. The job is listed until then. When that is, a recording of a batch learns as its batch ends, and a job
-- that has its next run as that does.
even_if_full()
local job = ARGV[1]
local left = redis.call('PTTL', job_key(job))
if left > 0 then
  redis.call('ZADD', 'lh:sweep', now_ms() + left + 1, job)
  return
end
redis.call('ZREM', 'lh:sweep', job)
if left == -2 then redis.call('ZREM', 'lh:jobs', job) end
