-- /stream has handed its client every event up to one. ARGV: job, event id. Never brings back an expired job.
if redis.call('EXISTS', job_key(ARGV[1])) == 1 then
  redis.call('HSET', job_key(ARGV[1]), 'cursor', ARGV[2])
end
