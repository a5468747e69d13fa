-- Asks for a lock. One atomic step tests that the session lives, that the claim was not withdrawn,
-- that it is not there already (ONCE), and that nothing ahead conflicts (ATOM-A, FAIR).
local mode = tonumber(ARGV[7])
local owner = ARGV[8]
local may_wait = ARGV[9] == 'wait'

local standing = lease()
if standing == 'gone' then
  return { 'lapsed' }
end
local known, withdrawn = read(id)
if known and not REPEATED_CLAIM then
  return look_again(known)
elseif withdrawn and not FORGOTTEN_WITHDRAW then
  return { 'absent' }
end

local blocked = is_blocked(mode)
if blocked and reap() then
  promote()
  blocked = is_blocked(mode)
end
if blocked and not may_wait then
  return { 'absent' }
end

if standing == 'missing' then
  make_lease()
end
local order = next_number()
local claim = { mode = mode, ticket = string.format('%016.0f', order), order = order, owner = owner }
redis.call('ZADD', claims, 0, place('c', id))
if not blocked then
  redis.call('ZADD', holders, mode, id)
  write(id, claim)
  return { 'granted', order }
end
claim.order = 0
redis.call('ZADD', waiters, mode, claim.ticket .. id)
write(id, claim)
contend(id, mode)
return { 'waiting', look_after(mode, claim.ticket) }
