-- Ingest ends the plan. ARGV: job, fence, total, duration_ms, warnings (JSON), dispatch_ms.
-- Returns 'sealed', 'complete' (every chunk had already ended: ring assemble), 'changed' (an earlier attempt
-- had found more chunks), 'lost' or 'gone'.
even_if_full()
local job, now = ARGV[1], now_ms()
if redis.call('HGET', job_key(job), 'status') ~= 'running' then return 'gone' end
if not holds(job, 'ingest', ARGV[2]) then return 'lost' end
local known = redis.call('HLEN', job_key(job, 'chunks'))
if known > tonumber(ARGV[3]) then return 'changed' end
-- A failover has lost some: another attempt adds them.
if known < tonumber(ARGV[3]) then return 'lost' end
local batch, sealed = unpack(fields(job, 'batch', 'sealed'))
redis.call('HSET', job_key(job), 'sealed', 1, 'total', ARGV[3], 'duration_ms', ARGV[4], 'warnings', ARGV[5])
-- Asked again after an answer that was lost, it is counted already.
if batch and sealed ~= '1' then planned(batch, ARGV[3], ARGV[4]) end
drop_lease(job, 'ingest', 'ingest')
-- The reaper may have put this attempt's work back in line meanwhile.
leave_line(job, 'ingest')
wake(job)
return complete(job, now, ARGV[6]) and 'complete' or 'sealed'
