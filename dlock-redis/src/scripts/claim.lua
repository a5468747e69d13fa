-- Shared by the scripts about one claim: who asks, whether its session lives, and the answer.
local id = ARGV[3]
local session = session_of(id)
local ttl = tonumber(ARGV[4]) -- milliseconds
-- 0: the session is known to have a lease here, so it is over when there is none. Otherwise the
-- moment until which this call may make the lease: a late call of a session that is over must not.
local may_make_lease_until = tonumber(ARGV[5])
local answers_are_confirmed = ARGV[6] == 'confirm'

-- 'stands', 'missing' (and may be made), or 'gone'.
local function lease()
  local lapse = tonumber(redis.call('ZSCORE', leases, session) or 0)
  if lapse > now then
    return 'stands'
  elseif lapse == 0 and now < may_make_lease_until then
    return 'missing'
  end
  return 'gone'
end

local function make_lease()
  redis.call('ZADD', leases, now + ttl, session)
end

-- The state of a claim that is in the store (ONCE).
local function answer(claim)
  if claim.order == 0 then
    return { 'waiting', look_after(claim.mode, claim.ticket) }
  end
  if answers_are_confirmed then
    -- WAIT confirms the writes of its own connection alone: let there be one (COMMITTED).
    redis.call('SET', last, string.format('%.0f', number))
  end
  return { 'granted', claim.order }
end

-- The state of a waiting claim, after freeing what stands in its way and belongs to nobody.
local function look_again(claim)
  if claim.order == 0 then
    reap()
    promote()
    claim = read(id)
  end
  return answer(claim)
end
