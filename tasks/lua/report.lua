-- What a worker's parent says of itself, which counts for some time from now. ARGV: role, worker, slots that
-- its processes should keep open, whether these have started (1 or 0), for_ms.
even_if_full()
local key, now = 'lh:workers:' .. ARGV[1], now_ms()
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('ZADD', key, now + ARGV[5], ARGV[2])
redis.call('PEXPIRE', key, ARGV[5])
redis.call('SET', 'lh:worker:' .. ARGV[2], ARGV[3] .. ' ' .. ARGV[4], 'PX', ARGV[5])
return 1
