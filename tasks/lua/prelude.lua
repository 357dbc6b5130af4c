-- What every script shares: Redis' clock, key names, and the steps that several state changes have in
-- common. docs/redis.md describes every key. Keys are built here and not passed in, since one change
-- touches a job, the outbox and global sets together: standalone or Sentinel, never Redis Cluster.

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The newest form of a job's row that these scripts know, and write. A unit of a newer one waits for so long
-- until it is offered again: by then a worker that knows it may be the one.
local SCHEMA = 2
local NEWER_MS = 10000

-- Go on where Redis is full, which refuses what may need memory only as a script's first write. For what
-- keeps, ends or hands on work that was accepted; what brings new work, or results, waits instead.
local function even_if_full() redis.call('DEL', 'lh:nothing') end

local function job_key(job, part)
  if part then return 'lh:job:' .. job .. ':' .. part end
  return 'lh:job:' .. job
end

-- The job that an idempotency key stands for; the key is a digest.
local function once_key(key) return 'lh:once:' .. key end

local function leases_key(stage) return 'lh:leases:' .. stage end

-- Job and unit of a member of the above.
local function parts(member) return string.match(member, '^(.*)/([^/]+)$') end

local function fields(job, ...) return redis.call('HMGET', job_key(job), ...) end

local function wake(job) redis.call('PUBLISH', 'lh:wake', job) end

-- A batch has several recordings; each is a job of its own, with this id, that only its batch tells of.
local function part_id(job, part) return job .. '.' .. part end

-- Count a job under its new status; `/health` reads these.
local function recount(job, old, new)
  if redis.call('HEXISTS', job_key(job), 'batch') == 1 then return end
  local counts = 'lh:counts:' .. redis.call('HGET', job_key(job), 'endpoint')
  if old then redis.call('HINCRBY', counts, old, -1) end
  redis.call('HINCRBY', counts, new, 1)
  local waiting = (new == 'queued' and 1 or 0) - (old == 'queued' and 1 or 0)
  if waiting ~= 0 then
    redis.call('HINCRBY', 'lh:waiting', redis.call('HGET', job_key(job), 'account'), waiting)
  end
end

-- Audio of an account that was transcribed on this day (UTC), ms.
local function audio_key(account, now)
  return 'lh:audio:' .. account .. ':' .. string.format('%d', math.floor(now / 86400000))
end

-- Fan-in. Whether the plan is sealed and every chunk is done or dead; of a batch, whether each part has ended.
local function all_ended(job)
  local row = fields(job, 'sealed', 'total', 'parts', 'open')
  if row[3] then return tonumber(row[4] or '0') <= 0 end
  if row[1] ~= '1' then return false end
  return redis.call('HLEN', job_key(job, 'results')) + redis.call('HLEN', job_key(job, 'dead')) >= tonumber(row[2])
end

-- The same, and the assemble stage then counts as dispatched, so that the reaper rings again if this caller dies
-- before it rings.
local function complete(job, now, dispatch_ms)
  if not all_ended(job) then return false end
  redis.call('ZADD', leases_key('assemble'), 'NX', now + dispatch_ms, job .. '/assemble')
  return true
end

-- A finished chunk enters the event stream of its job; that of a part of a batch the batch's, too.
local function tell(job, index, duration_ms, batch, part)
  redis.call('XADD', job_key(job, 'events'), '*', 'kind', 'segments', 'chunk', index, 'total_ms', duration_ms or '')
  if batch then
    redis.call('XADD', job_key(batch, 'events'), '*', 'kind', 'segments', 'chunk', index, 'total_ms',
      duration_ms or '', 'part', part)
    wake(batch)
  end
end

-- Readers see segments in order: only the contiguous prefix of finished chunks is told of. A dead chunk ends the
-- prefix, unless its job may have gaps: then it is passed over.
local function emit(job)
  local row = fields(job, 'emitted', 'duration_ms', 'batch', 'part', 'allow_gaps')
  local index = tonumber(row[1] or '0')
  while true do
    if redis.call('HEXISTS', job_key(job, 'results'), index) == 1 then
      tell(job, index, row[2], row[3], row[4])
    elseif row[5] ~= '1' or redis.call('HEXISTS', job_key(job, 'dead'), index) == 0 then
      break
    end
    index = index + 1
  end
  redis.call('HSET', job_key(job), 'emitted', index)
end

-- Whether a job has ended with all of its audio transcribed, which nobody needs any more.
local function transcribed(job)
  return redis.call('HGET', job_key(job), 'status') == 'succeeded' and redis.call('HLEN', job_key(job, 'dead')) == 0
end

-- Whether chunks of a job may be worked on: a run that begins with its plan at hand is still queued.
local function workable(job)
  local row = fields(job, 'status', 'sealed')
  return row[1] == 'running' or (row[1] == 'queued' and row[2] == '1')
end

-- A recording of a batch has its plan, or will never have one: once each has, the length of all is known.
local function planned(batch, total, duration_ms)
  local key = job_key(batch)
  local chunks = redis.call('HINCRBY', key, 'planned', total)
  local sum_ms = redis.call('HINCRBY', key, 'planned_ms', duration_ms)
  if redis.call('HINCRBY', key, 'unplanned', -1) == 0 then
    redis.call('HSET', key, 'total', chunks, 'duration_ms', sum_ms)
  end
end

local function holds(job, unit, fence)
  return redis.call('HGET', job_key(job, 'leases'), unit) == fence
end

local function drop_lease(job, stage, unit)
  redis.call('ZREM', leases_key(stage), job .. '/' .. unit)
  redis.call('HDEL', job_key(job, 'leases'), unit .. ':owner')
  redis.call('HDEL', job_key(job, 'partial'), unit)
end

-- A chunk goes back in line, or is given up.
local function put_back(job, index)
  redis.call('SREM', job_key(job, 'inflight'), index)
  redis.call('ZADD', job_key(job, 'pending'), index, index)
  drop_lease(job, 'transcribe', index)
  line_up(job, 'transcribe')
end

-- `reason` begins with a stable code and a colon.
local function bury(job, index, reason)
  redis.call('SREM', job_key(job, 'inflight'), index)
  redis.call('ZREM', job_key(job, 'pending'), index)
  redis.call('HSET', job_key(job, 'dead'), index, reason)
  drop_lease(job, 'transcribe', index)
  line_up(job, 'transcribe')
  emit(job)
  wake(job)
end

-- Outbox. A job's events form one list in their order; only its head is ever due, which is what keeps their
-- order. Other deliveries are due by themselves. See contracts/webhooks.md.
local function delivery_key(id) return 'lh:delivery:' .. id end

-- A delivery that has found nobody for so long is a dead letter, however many attempts it has left: a
-- receiver whose circuit is open costs none.
local DELIVERY_LIFE_MS = 7 * 24 * 3600 * 1000

local function schedule(id, due)
  local receiver = redis.call('HGET', delivery_key(id), 'receiver')
  redis.call('ZADD', 'lh:receiver:' .. receiver, due, id)
  redis.call('ZADD', 'lh:receivers', 'LT', due, receiver)
end

local function schedule_head(job, now)
  local head = redis.call('LINDEX', job_key(job, 'outbox'), 0)
  if head and not redis.call('ZSCORE', 'lh:receiver:' .. redis.call('HGET', delivery_key(head), 'receiver'), head) then
    schedule(head, now)
  end
end

-- Remember an id in a list of an account's deliveries for as long as its row can be read. The oldest go with
-- their rows: more for each that comes than one, so that the list is soon no longer than what can be read.
local function list(key, id, now, keep_ms)
  for _, old in ipairs(redis.call('ZRANGE', key, 0, 2)) do
    if redis.call('EXISTS', delivery_key(old)) == 0 then redis.call('ZREM', key, old) end
  end
  redis.call('ZADD', key, now, id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - keep_ms)
  redis.call('PEXPIRE', key, keep_ms)
end

-- End a delivery: delivered, superseded, gone or dead. Its row stays readable until its job's retention ends;
-- `longest_ms` is that of the endpoint that keeps its jobs longest.
local function settle(id, state, now, longest_ms)
  local row = redis.call('HMGET', delivery_key(id), 'job', 'receiver', 'account', 'kind', 'retention_ms')
  local retention_ms = row[5] or longest_ms
  redis.call('HSET', delivery_key(id), 'state', state, 'settled_ms', now)
  redis.call('PEXPIRE', delivery_key(id), retention_ms)
  redis.call('PEXPIRE', delivery_key(id) .. ':attempts', retention_ms)
  redis.call('LREM', job_key(row[1], 'outbox'), 1, id)
  redis.call('ZREM', 'lh:receiver:' .. row[2], id)
  if state == 'dead' and row[4] ~= 'test' then
    list('lh:dead:' .. row[3], id, now, tonumber(longest_ms))
  end
end

-- `transcribing` keeps its first try and two retries once the terminal event waits behind it;
-- progress is dropped as soon as anything newer exists. The end of a run is told, though the next has ended too.
local function overtaken(id, newer_kind)
  local row = redis.call('HMGET', delivery_key(id), 'kind', 'attempts', 'state')
  if row[3] == 'sending' then return false end
  if row[1] == 'progress' then return newer_kind == 'progress' or newer_kind == 'terminal' end
  return row[1] == 'transcribing' and newer_kind == 'terminal' and tonumber(row[2]) >= 3
end

-- A delivery's row. Its fields are documented in docs/redis.md.
local function write_delivery(id, kind, to, url, receiver, body, now, longest_ms)
  redis.call('HSET', delivery_key(id), 'job', to.job, 'account', to.account, 'endpoint', to.endpoint,
    'kind', kind, 'url', url, 'receiver', receiver, 'body', body, 'state', 'waiting', 'attempts', 0,
    'fence', 0, 'created_ms', now, 'retention_ms', to.retention_ms)
  list('lh:deliveries:' .. to.account, id, now, DELIVERY_LIFE_MS + tonumber(longest_ms))
end

local function write_of_job(job, kind, url, receiver, body, now, longest_ms)
  local row = fields(job, 'run', 'account', 'endpoint', 'retention_ms')
  local id = 'evt_' .. job .. '_' .. row[1] .. '_' .. redis.call('HINCRBY', job_key(job), 'seq', 1)
  local to = {job = job, account = row[2], endpoint = row[3], retention_ms = row[4] or longest_ms}
  write_delivery(id, kind, to, url, receiver, body, now, longest_ms)
  return id
end

-- Write an event of a job. Returns the receiver to ring for, or nothing.
local function post(job, kind, body, now, longest_ms)
  local row = fields(job, 'webhook_url', 'receiver')
  if not row[1] or row[1] == '' then return end
  for _, id in ipairs(redis.call('LRANGE', job_key(job, 'outbox'), 0, -1)) do
    if overtaken(id, kind) then settle(id, 'superseded', now, longest_ms) end
  end
  local id = write_of_job(job, kind, row[1], row[2], body, now, longest_ms)
  redis.call('RPUSH', job_key(job, 'outbox'), id)
  schedule_head(job, now)
  return row[2]
end

-- Write the platform's callback: one for the end of a run, in no order with the events. Its body is made
-- when it is sent, from the job as it ended. Returns the receiver to ring for, or nothing.
local function call_back(job, now, longest_ms)
  local row = fields(job, 'callback_url', 'callback_receiver')
  if not row[1] or row[1] == '' then return end
  schedule(write_of_job(job, 'callback', row[1], row[2], '', now, longest_ms), now)
  return row[2]
end

-- Uploads. What an API process is still writing when one expires is there before it is swept.
local UPLOAD_GRACE_MS = 60000

local function upload_key(id, part)
  if part then return 'lh:upload:' .. id .. ':' .. part end
  return 'lh:upload:' .. id
end

-- Keep an upload until then, unless it is to be kept for longer already.
local function keep_upload(id, until_ms)
  local old = tonumber(redis.call('HGET', upload_key(id), 'expires_ms') or '0')
  if old > until_ms then until_ms = old end
  redis.call('HSET', upload_key(id), 'expires_ms', until_ms)
  redis.call('ZADD', 'lh:uploads', until_ms + UPLOAD_GRACE_MS, id)
end

-- Offset and length of an account's ('': anybody's) upload; nothing if there is none, or not any more.
local function live_upload(id, account, now)
  local row = redis.call('HMGET', upload_key(id), 'offset', 'length', 'account', 'expires_ms')
  if not row[1] or tonumber(row[4]) <= now then return end
  if account ~= '' and account ~= row[3] then return end
  return {row[1], row[2]}
end
