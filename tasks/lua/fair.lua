-- Whose turn it is: start-time fair queueing, over flows and then over the jobs of each. It stands before the
-- prelude in every script. docs/decisions/0010-fair-dispatch.md has the reasons.
-- A flow is what an account has of one priority: '1/us', or '4/us' for its jobs of low priority. Each line is a
-- sorted set by virtual time; what is handed out moves its job, and its flow, back by its size.

-- No job is older than 7 days while it lives, and each chunk handed out renews its flow.
local FLOW_LIFE_MS = 8 * 24 * 3600 * 1000

local function line_key(stage, flow)
  if flow then return 'lh:line:' .. stage .. ':' .. flow end
  return 'lh:line:' .. stage
end

local function flow_key(stage, flow) return 'lh:flow:' .. stage .. ':' .. flow end

local function clock_key(stage) return 'lh:clock:' .. stage end

-- Where to stand in a line: where one's own time has come to, and not far in the past, so that nobody saves up
-- turns while idle. A newcomer stands a little (ms) before all whose turn is now: they may be many.
local function place_of(clock, own, before)
  local now = tonumber(clock or '0') - tonumber(before or '1')
  return math.max(now, tonumber(own or now))
end

local function flow_of(job)
  local row = redis.call('HMGET', 'lh:job:' .. job, 'account', 'cost', 'created_ms', 'virtual_ms')
  if row[1] then return (row[2] or '1') .. '/' .. row[1], row[3], row[4] end
end

-- Put a job in line for a stage. Within a flow, ingests: the oldest job first; chunks: by virtual time.
local function line_up(job, stage)
  local flow, created_ms, own = flow_of(job)
  if not flow then return end
  local state = redis.call('HMGET', flow_key(stage, flow), 'clock', 'virtual_ms', 'longest')
  -- A new job stands before the others by the longest chunk that there was.
  local place = stage == 'ingest' and created_ms or place_of(state[1], own, state[3])
  redis.call('ZADD', line_key(stage, flow), 'NX', place, job)
  redis.call('ZADD', line_key(stage), 'NX', place_of(redis.call('GET', clock_key(stage)), state[2]), flow)
end

local function leave_line(job, stage)
  local flow = flow_of(job)
  if not flow or redis.call('ZREM', line_key(stage, flow), job) == 0 then return end
  if redis.call('EXISTS', line_key(stage, flow)) == 0 then redis.call('ZREM', line_key(stage), flow) end
end

-- Take the job whose turn it is out of its flow's line; nothing if nobody waits. The flow keeps its place.
local function take_turn(stage)
  while true do
    local first = redis.call('ZRANGE', line_key(stage), 0, 0, 'WITHSCORES')
    local flow = first[1]
    if not flow then return end
    local popped = redis.call('ZPOPMIN', line_key(stage, flow))
    if popped[1] then
      return {flow = flow, flow_at = tonumber(first[2]), job = popped[1], job_at = tonumber(popped[2])}
    end
    redis.call('ZREM', line_key(stage), flow)
  end
end

-- The clock of a line after `size` went to one that stood at `place`. Whoever had waited there for its turn moves
-- it that far. A newcomer (its own time is another) moves it on by its part among all that wait, or a steady
-- stream of newcomers would stop it, and with it everybody else.
local function clock_after(clock, place, own, size, line)
  local moved = math.max(tonumber(clock or '0'), place)
  if own and tonumber(own) == place then return moved end
  return moved + math.floor(size / (redis.call('ZCARD', line) + 1))
end

-- What an account has of the plain priority is charged for its low priority too, so that both together get no
-- more than one share. Returns whether it waits.
local function charge_other(stage, account, share, clock)
  local line, other = line_key(stage), '1/' .. account
  local waits_at = redis.call('ZSCORE', line, other)
  local virtual = waits_at or place_of(clock, redis.call('HGET', flow_key(stage, other), 'virtual_ms'))
  virtual = math.ceil(virtual + share)
  if waits_at then redis.call('ZADD', line, virtual, other) end
  redis.call('HSET', flow_key(stage, other), 'virtual_ms', virtual)
  redis.call('PEXPIRE', flow_key(stage, other), FLOW_LIFE_MS)
  return waits_at
end

-- Count a turn against its flow. Low priority pays its cost, and once more while the account's other flow waits
-- too. It stands in line for as long as a job of it does.
local function pay(stage, turn, size, weight, own)
  local line, clock = line_key(stage), redis.call('GET', clock_key(stage))
  local cost, account = string.match(turn.flow, '^(%d+)/(.*)$')
  local share = size / tonumber(weight or '1')
  local times = tonumber(cost)
  if times > 1 and charge_other(stage, account, share, clock) then times = times + 1 end
  local virtual = turn.flow_at + math.ceil(times * share)
  redis.call('SET', clock_key(stage), clock_after(clock, turn.flow_at, own, virtual - turn.flow_at, line))
  if redis.call('EXISTS', line_key(stage, turn.flow)) == 1 then
    redis.call('ZADD', line, virtual, turn.flow)
  else
    redis.call('ZREM', line, turn.flow)
  end
  return virtual
end

-- Count an ingest. What it will take is not known, so each is a minute.
local function pay_ingest(turn, weight)
  local key = flow_key('ingest', turn.flow)
  redis.call('HSET', key, 'virtual_ms', pay('ingest', turn, 60000, weight, redis.call('HGET', key, 'virtual_ms')))
  redis.call('PEXPIRE', key, FLOW_LIFE_MS)
end

-- Count a chunk against its flow and its job, which stays in line if it has another one to give.
-- `own`: the job's virtual time before.
local function pay_chunk(turn, size, weight, own, stays)
  local line, key = line_key('transcribe', turn.flow), flow_key('transcribe', turn.flow)
  local flow = redis.call('HMGET', key, 'virtual_ms', 'clock', 'longest')
  local clock = clock_after(flow[2], turn.job_at, own, size, line)
  redis.call('HSET', 'lh:job:' .. turn.job, 'virtual_ms', turn.job_at + size)
  if stays then redis.call('ZADD', line, turn.job_at + size, turn.job) end
  redis.call('HSET', key, 'virtual_ms', pay('transcribe', turn, size, weight, flow[1]), 'clock', clock,
    'longest', math.max(size, tonumber(flow[3] or '0')))
  redis.call('PEXPIRE', key, FLOW_LIFE_MS)
end
