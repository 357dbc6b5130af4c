-- A member of a sorted set counts for some time from now. ARGV: key, member, for_ms.
even_if_full()
redis.call('ZADD', ARGV[1], now_ms() + ARGV[3], ARGV[2])
return 1
