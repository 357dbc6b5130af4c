-- A new job, once, with its parts if it is a batch.
-- ARGV: job, endpoint, ttl_ms, parts (JSON: the row of each part, or ''), limits (0: none) of the jobs of its
-- account that wait, of the account's audio of the day (ms) and of all jobs that wait, account, idempotency key
-- and digest of the body (each '': none), then field/value pairs of its row.
-- Returns 1; 0 if the job exists already; '<digest> <job>' of the job that has this key already; or -1, -2, -3:
-- which of the limits is reached.
local job, endpoint, now = ARGV[1], ARGV[2], now_ms()
if redis.call('EXISTS', job_key(job)) == 1 then return 0 end
-- Before the limits: the repetition of a request that was accepted is no new job.
local known = ARGV[9] ~= '' and redis.call('GET', once_key(ARGV[9]))
if known and redis.call('EXISTS', job_key(string.match(known, ' (.*)$'))) == 1 then return known end

local account, most_waiting, most_ms, most_of_all = ARGV[8], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if most_waiting > 0 and tonumber(redis.call('HGET', 'lh:waiting', account) or '0') >= most_waiting then return -1 end
if most_ms > 0 and tonumber(redis.call('GET', audio_key(account, now)) or '0') >= most_ms then return -2 end
if most_of_all > 0 then
  local waiting = 0
  for _, count in ipairs(redis.call('HVALS', 'lh:waiting')) do waiting = waiting + count end
  if waiting >= most_of_all then return -3 end
end

local function write(id, ...)
  redis.call('HSET', job_key(id), 'schema', SCHEMA, 'status', 'queued', 'run', 1, 'endpoint', endpoint,
    'account', account, 'created_ms', now, 'ttl_ms', ARGV[3], 'deadline_ms', now + ARGV[3], ...)
  recount(id, nil, 'queued')
  redis.call('ZADD', 'lh:deadlines', now + ARGV[3], id)
  -- Of a job of this id before it, which has gone: this one needs its audio.
  redis.call('ZREM', 'lh:sweep', id)
end

write(job, unpack(ARGV, 11))
if ARGV[9] ~= '' then
  redis.call('SET', once_key(ARGV[9]), ARGV[10] .. ' ' .. job)
  redis.call('HSET', job_key(job), 'once', ARGV[9])
end
redis.call('ZADD', 'lh:jobs', now, job)
if ARGV[4] ~= '' then
  local rows = cjson.decode(ARGV[4])
  redis.call('HSET', job_key(job), 'parts', #rows, 'open', #rows, 'unplanned', #rows)
  for part, row in ipairs(rows) do
    local pairs_of_row = {'batch', job, 'part', part - 1}
    for name, value in pairs(row) do
      table.insert(pairs_of_row, name)
      table.insert(pairs_of_row, value)
    end
    write(part_id(job, part - 1), unpack(pairs_of_row))
    line_up(part_id(job, part - 1), 'ingest')
  end
  return 1
end
-- A refused input is a job too, which only tells its error: nobody is to work on it.
if redis.call('HGET', job_key(job), 'request') ~= '' then line_up(job, 'ingest') end
return 1
