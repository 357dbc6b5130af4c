-- /stream has handed its client every event up to one. ARGV: job, event id.
-- Never brings back an expired job, and never goes back: two API processes may serve one job's readers.
local function parts(id)
  local ms, number = string.match(id, '^(%d+)%-?(%d*)$')
  return tonumber(ms), tonumber(number) or 0
end

even_if_full()
local old = redis.call('HGET', job_key(ARGV[1]), 'cursor') or '0'
local old_ms, old_number = parts(old)
local new_ms, new_number = parts(ARGV[2])
local further = new_ms > old_ms or (new_ms == old_ms and new_number > old_number)
if further and redis.call('EXISTS', job_key(ARGV[1])) == 1 then
  redis.call('HSET', job_key(ARGV[1]), 'cursor', ARGV[2])
end
