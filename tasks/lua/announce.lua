-- Transcription of a job begins: write its `transcribing` event, once a run. ARGV: job, body,
-- longest_retention_ms.
-- Returns the receiver to ring for, or ''.
local job, now = ARGV[1], now_ms()
-- A batch is announced with the first of its parts.
job = redis.call('HGET', job_key(job), 'batch') or job
if redis.call('HGET', job_key(job), 'status') ~= 'running' then return '' end
if redis.call('HSETNX', job_key(job), 'announced_ms', now) == 0 then return '' end
return post(job, 'transcribing', ARGV[2], now, ARGV[3]) or ''
