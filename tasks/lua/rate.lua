-- Count one call. ARGV: name, operation, limit, window_ms. Returns 0, or how long to wait, ms.
even_if_full()
local now = now_ms()
local window = math.floor(now / ARGV[4])
local key = 'lh:rate:' .. ARGV[1] .. ':' .. ARGV[2] .. ':' .. string.format('%d', window)
local count = redis.call('INCR', key)
if count == 1 then redis.call('PEXPIRE', key, ARGV[4]) end
if count <= tonumber(ARGV[3]) then return 0 end
return (window + 1) * ARGV[4] - now
