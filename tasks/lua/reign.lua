-- Who reaps: this process, if none does or it does already. ARGV: name, for_ms (0: it does not any more).
-- Returns 1, or 0: another does.
even_if_full()
local reaper = redis.call('GET', 'lh:reaper')
if reaper and reaper ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', 'lh:reaper')
else
  redis.call('SET', 'lh:reaper', ARGV[1], 'PX', ARGV[2])
end
return 1
