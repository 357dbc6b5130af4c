-- A job names an upload: keep it. ARGV: upload, account ('': whoever's), keep_ms.
-- Returns {offset, length}, or {} if there is none. One that is not complete is kept no longer for it.
local id, now = ARGV[1], now_ms()
local row = live_upload(id, ARGV[2], now)
if not row then return {} end
if row[1] == row[2] then keep_upload(id, now + ARGV[3]) end
return row
