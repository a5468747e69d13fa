-- Shared by the scripts about one claim: whether its session lives.

-- 'stands', 'missing' (and may be made), or 'gone'.
local function lease()
  local lapse = tonumber(redis.call('ZSCORE', leases, session_of(id)) or 0)
  if lapse > now then
    return 'stands'
  elseif lapse == 0 and now < may_make_lease_until then
    return 'missing'
  end
  return 'gone'
end

local function make_lease()
  redis.call('ZADD', leases, now + ttl, session_of(id))
end
