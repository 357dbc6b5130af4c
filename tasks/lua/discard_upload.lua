-- An upload that failed is over at once; what of it is on its way yet is swept a while later. ARGV: upload.
if redis.call('EXISTS', upload_key(ARGV[1])) == 0 then return 0 end
redis.call('HSET', upload_key(ARGV[1]), 'expires_ms', 0)
keep_upload(ARGV[1], now_ms())
return 1
