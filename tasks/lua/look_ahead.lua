-- Whether ingest is so far ahead of a job's workers that cutting may pause. ARGV: job, chunks that it may always
-- be ahead, and those for each live slot. Returns 1 or 0; changes nothing.
local job, slots = ARGV[1], redis.call('ZCOUNT', 'lh:slots:transcribe', now_ms(), '+inf')
local unfinished = redis.call('ZCARD', job_key(job, 'pending')) + redis.call('SCARD', job_key(job, 'inflight'))
if unfinished <= math.max(tonumber(ARGV[2]), slots * ARGV[3]) then return 0 end
-- Another recording must not wait for an ingest that this one keeps from it.
return redis.call('ZCARD', 'lh:line:ingest') == 0 and 1 or 0
