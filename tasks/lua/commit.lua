-- One chunk's result, written once, by the holder of its lease.
-- ARGV: job, index, fence, result, language ('': nobody spoke), audio_ms, dispatch_ms, longest_retention_ms,
--       progress_interval_ms, progress_step, seen_done_ms, seen_duration_ms, progress body, worker,
--       probability of the language, 1 if that is enough to pin it.
-- Returns {outcome, receiver}: outcome 'done' | 'complete' (ring assemble) | 'lost' | 'gone' | 'stale'.
-- 'stale': a progress event is due, but the body was written for another state: look again and repeat.
-- So the event and the state it reports are one step, and its bytes are made in one place (events.py).

-- So many chunks that are not sure of their language decide together: one by one is no way to do a whole
-- recording that nobody can tell the language of.
local MOST_UNSURE = 3

-- Pin the language of a chunk that is sure of it, or of all unsure ones by the sum of their probabilities;
-- of equals, the one heard first.
local function hear(job, before, language, probability, sure)
  local heard = cjson.decode(before or '[]')
  table.insert(heard, {language, tonumber(probability)})
  if not sure and #heard < MOST_UNSURE then
    redis.call('HSET', job_key(job), 'unsure', cjson.encode(heard))
    return
  end
  local sums, best = {}, language
  if not sure then
    best = heard[1][1]
    for _, ballot in ipairs(heard) do sums[ballot[1]] = (sums[ballot[1]] or 0) + ballot[2] end
    for _, ballot in ipairs(heard) do
      if sums[ballot[1]] > sums[best] then best = ballot[1] end
    end
  end
  redis.call('HSET', job_key(job), 'pinned', 1, 'language', best)
end

local job, index, now = ARGV[1], ARGV[2], now_ms()
local row = fields(job, 'status', 'pinned', 'batch', 'unsure')
-- What is told of: the batch, if the job is one of its recordings.
local told = row[3] or job
local whole = fields(told, 'done_ms', 'duration_ms', 'progress_ms', 'progress_done_ms', 'announced_ms')
if row[1] ~= 'running' then return {'gone', ''} end
if not holds(job, index, ARGV[3]) or redis.call('HEXISTS', job_key(job, 'dead'), index) == 1 then
  return {'lost', ''}
end
if redis.call('HEXISTS', job_key(job, 'results'), index) == 1 then
  return {complete(job, now, ARGV[7]) and 'complete' or 'done', ''}
end

local before, duration = tonumber(whole[1] or '0'), whole[2] or ''
local done = before + ARGV[6]
local step = done - tonumber(whole[4] or '0')
local due = whole[5] and now - tonumber(whole[3] or '0') >= tonumber(ARGV[9])
  and (duration == '' or step >= ARGV[10] * tonumber(duration))
if due and (ARGV[11] ~= tostring(before) or ARGV[12] ~= duration) then return {'stale', ''} end

redis.call('HSET', job_key(job, 'results'), index, ARGV[4])
redis.call('SADD', job_key(job, 'workers'), ARGV[14])
redis.call('SREM', job_key(job, 'inflight'), index)
redis.call('ZREM', job_key(job, 'pending'), index)
drop_lease(job, 'transcribe', index)
redis.call('HINCRBY', job_key(job), 'done_ms', ARGV[6])
if row[3] then
  redis.call('HINCRBY', job_key(told), 'done_ms', ARGV[6])
  redis.call('HINCRBY', job_key(told), 'chunks_done', 1)
end
if row[2] ~= '1' and ARGV[5] ~= '' then hear(job, row[4], ARGV[5], ARGV[15], ARGV[16] == '1') end
local audio = audio_key(redis.call('HGET', job_key(job), 'account'), now)
redis.call('INCRBY', audio, ARGV[6])
redis.call('PEXPIRE', audio, 2 * 86400000)
-- Until then, a chunk in hand keeps the job out of the line.
if row[2] ~= '1' then line_up(job, 'transcribe') end
emit(job)
wake(job)
local receiver
if due then
  redis.call('HSET', job_key(told), 'progress_ms', now, 'progress_done_ms', done)
  receiver = post(told, 'progress', ARGV[13], now, ARGV[8])
end
return {complete(job, now, ARGV[7]) and 'complete' or 'done', receiver or ''}
