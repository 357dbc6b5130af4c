-- A worker ends, and gives back at once what its processes have in hand: nobody is charged.
-- ARGV: names of the processes. Returns how many units went back; they are rung for by the next dispatch or reap.
local now, count, mine = now_ms(), 0, {}
for _, name in ipairs(ARGV) do mine[name] = true end
for _, stage in ipairs({'ingest', 'transcribe', 'assemble'}) do
  for _, member in ipairs(redis.call('ZRANGE', leases_key(stage), 0, -1)) do
    local job, unit = parts(member)
    local owner = redis.call('HGET', job_key(job, 'leases'), unit .. ':owner')
    if owner and mine[string.match(owner, '^(.*)/')] then
      if stage == 'transcribe' then
        put_back(job, unit)
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
return count
