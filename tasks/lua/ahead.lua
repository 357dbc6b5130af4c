-- Which chunk a process may prepare while it has another one in hand. ARGV: process, keep_ms.
-- One that was handed out, is in nobody's hands, and that nobody else prepares: for keep_ms it is kept from being
-- prepared twice, and from nothing else. None that has failed: it waits for its turn, or its next death would
-- end a process that has another chunk in hand.
-- Returns {job, index}, or nothing.
for _, member in ipairs(redis.call('ZRANGE', leases_key('transcribe'), 0, 199)) do
  local job, index = parts(member)
  local row = redis.call('HMGET', job_key(job, 'leases'), index .. ':owner', index .. ':failures', index .. ':deaths')
  if not row[1] and (row[2] or '0') == '0' and not row[3] and workable(job)
    and redis.call('SET', 'lh:ahead:' .. member, ARGV[1], 'NX', 'PX', ARGV[2]) then
    return {job, index}
  end
end
return {}
