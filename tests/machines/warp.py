"""Time that passes in Redis without anybody waiting: every stamp it holds moves into the past."""

from typing import Any

# A number of this size is a moment, ms since 1970; durations, counters and virtual times are far below.
_WARP = """
local by, least = tonumber(ARGV[1]), 1e12
local function moved(text)
  local number = string.match(text, '^%d+$') and tonumber(text)
  return number and number > least and string.format('%d', number - by) or nil
end
-- The reaper goes on looking meanwhile.
redis.call('DEL', 'lh:reaped')
for _, key in ipairs(redis.call('KEYS', 'lh:*')) do
  local kind, ttl = redis.call('TYPE', key).ok, redis.call('PTTL', key)
  if kind == 'zset' then
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for at = 1, #found, 2 do
      if tonumber(found[at + 1]) > least then redis.call('ZINCRBY', key, -by, found[at]) end
    end
  elseif kind == 'hash' then
    local found = redis.call('HGETALL', key)
    for at = 1, #found, 2 do
      local value = moved(found[at + 1])
      if value then redis.call('HSET', key, found[at], value) end
    end
  elseif kind == 'string' then
    local value = moved(redis.call('GET', key))
    if value then redis.call('SET', key, value, 'KEEPTTL') end
  end
  if ttl >= 0 then redis.call('PEXPIRE', key, ttl - by) end
end
"""


def pass_time(redis: Any, ms: int) -> None:
    """Let `ms` pass for everything but the ids of stream entries; what has a shorter TTL is gone."""
    redis.eval(_WARP, 0, ms)
