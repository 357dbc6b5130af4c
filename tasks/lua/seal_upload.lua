-- An upload whose length was not known ends where it is. ARGV: upload, account. Returns 0 if there is none.
local row = live_upload(ARGV[1], ARGV[2], now_ms())
if not row then return 0 end
if row[2] == '' then redis.call('HSET', upload_key(ARGV[1]), 'length', row[1]) end
return 1
