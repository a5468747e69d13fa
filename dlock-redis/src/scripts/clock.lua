-- Shared by all scripts: the server's clock. It stands still while a script runs, so that all
-- that one script does happens at one moment.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- milliseconds since 1970

-- The leases of the partition, by session. The score is
--   > now       the moment at which the lease runs out: it stands until then;
--   1 to now    a lapsed one, whose claims nobody has freed yet; it counts as absent everywhere;
--   < 0         a dead one: minus the moment of its death. A session is never brought back to life.
local leases = KEYS[1]
