-- A part is in the blob store: count it, if it continues what is there.
-- ARGV: upload, account, offset it begins at, its name, its size, retention_ms, most bytes, most parts.
-- Returns {outcome, offset after it}; the outcome is ok, gone, conflict, large or parts.
local id, now = ARGV[1], now_ms()
local row = live_upload(id, ARGV[2], now)
if not row then return {'gone', 0} end
local offset, length = tonumber(row[1]), tonumber(row[2])
-- Asked again after an answer that was lost.
if redis.call('LINDEX', upload_key(id, 'parts'), -1) == ARGV[4] then return {'ok', offset} end
if offset ~= tonumber(ARGV[3]) then return {'conflict', offset} end
local after = offset + tonumber(ARGV[5])
if after > (length or tonumber(ARGV[7])) then return {'large', offset} end
if redis.call('LLEN', upload_key(id, 'parts')) >= tonumber(ARGV[8]) then return {'parts', offset} end
redis.call('RPUSH', upload_key(id, 'parts'), ARGV[4])
redis.call('HSET', upload_key(id), 'offset', after)
keep_upload(id, now + ARGV[6])
return {'ok', after}
