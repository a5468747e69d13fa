-- The first part of a withdraw, and mostly all of it: a granted claim leaves, and nobody waits.
local may_arrive_late = ARGV[5] == 'unanswered'

local freed = leave(id)
if freed and not may_arrive_late and redis.call('ZCOUNT', lock, FIRST_WAITING, LAST_WAITING) == 0 then
  return
end
