-- Ingest adds one chunk, write-once. ARGV: job, fence, index, chunk row (JSON), digest.
-- Returns 'added', 'same' (an earlier attempt added it), 'changed' (other audio at this index),
-- 'lost' (another attempt holds the lease) or 'gone' (the job has ended).
local job, index = ARGV[1], ARGV[3]
local status = redis.call('HGET', job_key(job), 'status')
if status ~= 'running' then
  -- What the caller has stored for the chunk may have come after the sweep.
  if not status or transcribed(job) then redis.call('ZADD', 'lh:sweep', now_ms(), job) end
  return 'gone'
end
if not holds(job, 'ingest', ARGV[2]) then return 'lost' end
local known = redis.call('HGET', job_key(job, 'chunks'), index)
if known then
  local row = cjson.decode(known)
  if row.digest ~= ARGV[5] then return 'changed' end
  -- The same attempt asks twice when the answer to its first question was lost: its blob is the chunk's.
  return row.blob == cjson.decode(ARGV[4]).blob and 'added' or 'same'
end
redis.call('HSET', job_key(job, 'chunks'), index, ARGV[4])
redis.call('ZADD', job_key(job, 'pending'), index, index)
line_up(job, 'transcribe')
return 'added'
