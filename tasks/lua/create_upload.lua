-- A new upload, before any byte of it. ARGV: upload, account, length ('': known at its end), metadata, retention_ms.
local id, now = ARGV[1], now_ms()
if redis.call('EXISTS', upload_key(id)) == 1 then return 0 end
redis.call('HSET', upload_key(id), 'account', ARGV[2], 'length', ARGV[3], 'metadata', ARGV[4], 'offset', 0,
  'created_ms', now)
keep_upload(id, now + ARGV[5])
return 1
