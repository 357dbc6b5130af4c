-- One delivery of no job, to try a receiver with. ARGV: id, account, endpoint, url, receiver, body,
-- retention_ms, longest_retention_ms.
local now = now_ms()
local to = {job = '', account = ARGV[2], endpoint = ARGV[3], retention_ms = ARGV[7]}
write_delivery(ARGV[1], 'test', to, ARGV[4], ARGV[5], ARGV[6], now, ARGV[8])
-- A person asked for it: a circuit that is open lets it through as a probe.
schedule(ARGV[1], 0)
if redis.call('HEXISTS', 'lh:circuit:' .. ARGV[5], 'open_until_ms') == 1 then
  redis.call('HSET', 'lh:circuit:' .. ARGV[5], 'open_until_ms', now)
end
return 1
