-- Shared by the scripts about one claim: who asks.
local id = ARGV[1]
local answers_are_confirmed = ARGV[2] == 'confirm'
-- 0: the session is known to have a lease here, so it is over when there is none. Otherwise the
-- moment until which this call may make the lease: a late call of a session that is over must not.
local may_make_lease_until = tonumber(ARGV[3])
local ttl = ARGV[4] -- milliseconds; empty where no lease may be made
