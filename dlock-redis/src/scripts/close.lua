-- Ends a session in this partition: its lease has lapsed as of now, so that no request of it is
-- granted any more, and anybody may free its claims. Without claims it is dead. Returns whether it
-- left some.
local claims = KEYS[2]
local session = ARGV[1]

local lapse = tonumber(redis.call('ZSCORE', leases, session) or 0)
if lapse < 0 then
  return 0
end
local left = redis.call('ZRANGE', claims, '[' .. session, '(' .. session .. '~', 'BYLEX', 'LIMIT', 0, 1)
if not left[1] then
  redis.call('ZADD', leases, -now, session)
  return 0
end
if lapse == 0 or lapse > now then
  redis.call('ZADD', leases, now, session)
end
return 1
