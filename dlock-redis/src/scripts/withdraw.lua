-- Takes a claim out, waiting or granted, by its own id: no other claim is touched, and taking out
-- what is not there succeeds (ATOM-B).
local claim = not freed and find(id)
if claim then
  remove(id, claim)
  freed = true
end
-- A request that is still on its way finds this mark (ONCE). The mark lives as long as the session.
-- Where the lease is gone no request is granted anyway.
local standing = may_arrive_late and lease()
if standing and standing ~= 'gone' then
  if standing == 'missing' then
    make_lease()
  end
  redis.call('ZADD', lock, MARKED, MARK .. id)
  redis.call('ZADD', claims, 0, place(id) .. MARK)
end
if freed and first_at(FIRST_WAITING, LAST_WAITING) then
  reap()
  promote()
end
