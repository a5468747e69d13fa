-- Takes a claim out, waiting or granted, by its own id: no other claim is touched, and taking out
-- what is not there succeeds (ATOM-B).
local may_arrive_late = ARGV[7] == 'unanswered'

if UNCHECKED_RELEASE then
  id = redis.call('ZRANGE', holders, 0, 0)[1] or id
end
local standing = lease()
local claim = read(id)
if claim then
  remove(id, claim)
end
-- A request that is still on its way finds this mark (ONCE). The mark lives as long as the session.
-- Where the lease is gone no request is granted anyway.
if may_arrive_late and standing ~= 'gone' then
  if standing == 'missing' then
    make_lease()
  end
  redis.call('HSET', records, id, WITHDRAWN)
  redis.call('ZADD', claims, 0, place('m', id))
end
if claim and redis.call('EXISTS', waiters) == 1 then
  reap()
  promote()
end
return { 'done' }
