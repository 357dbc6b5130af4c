-- Take a lease on one unit of work. ARGV: job, stage, unit, owner, lease_ms, max_starts, dispatch_ms,
-- instead_of (`job/index` of the chunk that was rung for, where this one is prepared; or '').
-- A task message is only a hint: lost, doubled and late ones end here, harmlessly.
-- Returns {'ok', fence, deaths in a row in one window, 1 if that other chunk still waits: ring for it again} or
-- {why not}: gone, done, dead, held, unknown, early (not all of it has ended), newer (than these scripts: the
-- unit is set aside for a worker that knows it), 'complete' (a worn chunk was given up and was the last: ring
-- assemble), or {'worn', fence}: started too often, and the caller fails the job under that fence.
local job, stage, unit, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, leases = now_ms(), job_key(job, 'leases')
-- To assemble brings an end, and that frees memory; a chunk's result would only wait for some.
if stage == 'assemble' then even_if_full() end
local row = fields(job, 'status', 'execution_timeout_ms', 'parts', 'schema')
local status = row[1]
-- A batch has no audio of its own.
if row[3] and stage ~= 'assemble' then return {'unknown'} end
-- A batch whose recordings were all done before is queued until it is assembled.
local begins = stage == 'ingest' or (stage == 'assemble' and row[3])
if not workable(job) and not (status == 'queued' and begins) then return {'gone'} end
if stage == 'transcribe' then
  if redis.call('HEXISTS', job_key(job, 'results'), unit) == 1 then return {'done'} end
  if redis.call('HEXISTS', job_key(job, 'dead'), unit) == 1 then return {'dead'} end
  if redis.call('HEXISTS', job_key(job, 'chunks'), unit) == 0 then return {'unknown'} end
elseif stage == 'ingest' and redis.call('HGET', job_key(job), 'sealed') == '1' then
  redis.call('ZREM', leases_key('ingest'), job .. '/ingest')
  return {'done'}
end

-- A message of the run before may come in this one.
if stage == 'assemble' and not all_ended(job) then return {'early'} end

local function begin(id, timeout_ms)
  redis.call('HSET', job_key(id), 'status', 'running', 'started_ms', now)
  recount(id, 'queued', 'running')
  -- Run time is counted from here, queue wait never.
  local limit = tonumber(timeout_ms or '0')
  if limit > 0 then redis.call('ZADD', 'lh:deadlines', 'LT', now + limit, id) end
  wake(id)
end

-- The longest that a chunk takes.
local INSTEAD_MS = 86400000
local member, held_by = job .. '/' .. unit, redis.call('HGET', leases, unit .. ':owner')
local expiry = tonumber(redis.call('ZSCORE', leases_key(stage), member) or '0')
-- The same owner asks twice when the reply to its first question was lost.
local function granted()
  local again, instead_of = 0, ARGV[8] or ''
  if stage == 'transcribe' then
    -- For the parent of the process, who knows from the message what it has in hand.
    local key = 'lh:instead:' .. (string.match(owner, '^(.*)/') or owner)
    if instead_of == '' then
      redis.call('DEL', key)
    else
      redis.call('SET', key, instead_of .. ' ' .. member, 'PX', INSTEAD_MS)
      local other_job, other = parts(instead_of)
      local waits = redis.call('ZSCORE', leases_key(stage), instead_of)
      if waits and redis.call('HEXISTS', job_key(other_job, 'leases'), other .. ':owner') == 0 then
        redis.call('ZADD', leases_key(stage), now + ARGV[7], instead_of)
        again = 1
      end
    end
  end
  local deaths = redis.call('HGET', leases, unit .. ':deaths') or '0'
  return {'ok', redis.call('HGET', leases, unit), deaths, again}
end
if held_by == owner then return granted() end
if held_by and expiry > now then return {'held'} end
if tonumber(row[4] or '1') > SCHEMA then
  drop_lease(job, stage, unit)
  if stage == 'transcribe' then
    redis.call('SREM', job_key(job, 'inflight'), unit)
    redis.call('ZADD', job_key(job, 'pending'), unit, unit)
  end
  if stage == 'assemble' then
    redis.call('ZADD', leases_key(stage), now + NEWER_MS, member)
  else
    -- Out of the line and out of flight: what nobody here may do takes no place of what they may.
    leave_line(job, stage)
    redis.call('ZADD', 'lh:aside', now + NEWER_MS, job .. '/' .. stage)
  end
  return {'newer'}
end
local starts = redis.call('HMGET', leases, unit, unit .. ':before')
if tonumber(starts[1] or '0') - tonumber(starts[2] or '0') >= tonumber(ARGV[6]) then
  if stage ~= 'transcribe' then return {'worn', starts[1]} end
  bury(job, unit, 'worn_out: started ' .. ARGV[6] .. ' times and never finished')
  return {complete(job, now, ARGV[7]) and 'complete' or 'dead'}
end

redis.call('HINCRBY', leases, unit, 1)
redis.call('HSET', leases, unit .. ':owner', owner)
redis.call('HDEL', leases, unit .. ':window')
redis.call('ZADD', leases_key(stage), now + ARGV[5], member)
if stage == 'transcribe' then
  redis.call('ZREM', job_key(job, 'pending'), unit)
  redis.call('SADD', job_key(job, 'inflight'), unit)
elseif stage == 'ingest' then
  leave_line(job, 'ingest')
  -- What a run before this one had planned could not be handed out until now.
  if redis.call('EXISTS', job_key(job, 'pending')) == 1 then line_up(job, 'transcribe') end
end
if status == 'queued' then
  begin(job, row[2])
  local batch = redis.call('HGET', job_key(job), 'batch')
  if batch and redis.call('HGET', job_key(batch), 'status') == 'queued' then
    begin(batch, redis.call('HGET', job_key(batch), 'execution_timeout_ms'))
  end
end
return granted()
