-- How the units stand that processes of a worker have in hand. ARGV: job, stage, unit, process of each.
-- Returns of each the ms until its lease is over, -1 if the process has none, -2 if the job has ended.
local now, found = now_ms(), {}
for place = 1, #ARGV, 4 do
  local job, stage, unit, process = ARGV[place], ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]
  local instead = stage == 'transcribe' and redis.call('GET', 'lh:instead:' .. process)
  if instead then
    -- It claimed another chunk than the one that its message names (claim.lua).
    local named, claimed = string.match(instead, '^(%S+) (%S+)$')
    if named == job .. '/' .. unit then job, unit = parts(claimed) end
  end
  local status = redis.call('HGET', job_key(job), 'status')
  local owner = redis.call('HGET', job_key(job, 'leases'), unit .. ':owner')
  local expiry = redis.call('ZSCORE', leases_key(stage), job .. '/' .. unit)
  local state = -1
  if status ~= 'queued' and status ~= 'running' then
    state = -2
  elseif owner and expiry and string.match(owner, '^(.*)/') == process and tonumber(expiry) > now then
    state = expiry - now
  end
  table.insert(found, state)
end
return found
