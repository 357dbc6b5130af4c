-- Give back at once what processes had in hand that have died, or that end with their worker.
-- ARGV: deaths, dispatch_ms, names of the processes. `deaths`: so many deaths in a row in the same window of a
-- chunk make it poison, and these are some; 0: nobody is charged.
-- Returns {how many units went back, jobs to ring assemble for}; what went back is rung for by the next
-- dispatch or reap.
even_if_full()
local limit, now, count, mine, finished = tonumber(ARGV[1]), now_ms(), 0, {}, {}
for place = 3, #ARGV do mine[ARGV[place]] = true end

local function range(window)
  local first, last = string.match(window or '', '^(%d+) (%d+)$')
  -- Before its first window; the same way of writing it.
  return tonumber(first or '-1'), tonumber(last or '-1')
end

local function shown(first, last)
  if last < 0 then return 'before its first window' end
  return first == last and 'in window ' .. first or 'in windows ' .. first .. ' to ' .. last
end

-- Charge a chunk with a death, in the windows that it had in hand. Why it is poison, if it is.
local function charged(job, unit)
  local leases = job_key(job, 'leases')
  local row = redis.call('HMGET', leases, unit .. ':window', unit .. ':suspect', unit .. ':deaths')
  local first, last = range(row[1])
  local from, to = range(row[2])
  local deaths = 1
  if row[3] and first <= to and from <= last then
    -- What the windows of all of them have in common.
    first, last, deaths = math.max(first, from), math.min(last, to), row[3] + 1
  end
  redis.call('HSET', leases, unit .. ':suspect', first .. ' ' .. last, unit .. ':deaths', deaths)
  if deaths >= limit then
    return 'poison_chunk: its process died ' .. deaths .. ' times in a row ' .. shown(first, last)
  end
end

for _, stage in ipairs({'ingest', 'transcribe', 'assemble'}) do
  for _, member in ipairs(redis.call('ZRANGE', leases_key(stage), 0, -1)) do
    local job, unit = parts(member)
    local owner = redis.call('HGET', job_key(job, 'leases'), unit .. ':owner')
    if owner and mine[string.match(owner, '^(.*)/')] then
      if stage == 'transcribe' then
        local poison = limit > 0 and charged(job, unit)
        if poison then
          bury(job, unit, poison)
          if complete(job, now, ARGV[2]) then table.insert(finished, job) end
        else
          put_back(job, unit)
        end
      elseif stage == 'ingest' then
        drop_lease(job, stage, unit)
        line_up(job, stage)
      else
        redis.call('HDEL', job_key(job, 'leases'), unit .. ':owner')
        redis.call('ZADD', leases_key(stage), now, member)
      end
      count = count + 1
    end
  end
end
return {count, finished}
