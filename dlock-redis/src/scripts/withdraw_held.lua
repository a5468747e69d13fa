-- The first part of a withdraw, and mostly all of it: a granted claim leaves, and nobody waits.
local may_arrive_late = ARGV[5] == 'unanswered'

if UNCHECKED_RELEASE then
  id = redis.call('ZRANGE', lock, 0, LAST_HELD, 'BYSCORE', 'LIMIT', 0, 1)[1] or id
end
local freed = redis.call('ZREM', lock, id) == 1
if freed then
  local mine = place(id)
  redis.call('ZREMRANGEBYLEX', claims, '[' .. mine, '(' .. mine .. ':')
  if not may_arrive_late and redis.call('ZCOUNT', lock, FIRST_WAITING, LAST_WAITING) == 0 then
    return
  end
end
