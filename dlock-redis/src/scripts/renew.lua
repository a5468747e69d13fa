-- Renews a session's lease in this partition, or makes it when the session is opened. Touches one
-- key, so that leases are renewed even while the slot is on its way to another node.
-- Returns the moment at which the lease runs out (0 if there is none, -1 if the session is over),
-- and how many lapsed sessions there are whose claims nobody has freed.
local session = ARGV[1]
local ttl = tonumber(ARGV[2]) -- milliseconds
local where_absent = ARGV[3]  -- 'make' the lease, the session is 'over', or there was 'none' yet
local KEEP_DEAD = 600000      -- milliseconds: far longer than a request can be on its way

local lapse = tonumber(redis.call('ZSCORE', leases, session) or 0)
local leftovers = redis.call('ZCOUNT', leases, 1, now)
if lapse == 0 and where_absent == 'none' then
  return { 0, leftovers }
elseif lapse == 0 and where_absent ~= 'make'
    or lapse ~= 0 and lapse <= now and not REVIVED_SESSION then
  return { -1, leftovers }
end
redis.call('ZADD', leases, now + ttl, session)
redis.call('ZREMRANGEBYSCORE', leases, -(now - KEEP_DEAD), -1)
return { now + ttl, leftovers }
