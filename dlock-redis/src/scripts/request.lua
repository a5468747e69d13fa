-- Asks for a lock. One atomic step tests that the session lives, that the claim was not withdrawn,
-- that it is not there already (ONCE), and that nothing ahead conflicts (ATOM-A, FAIR).
local may_wait = ARGV[5] == 'wait'

local known, withdrawn = find(id)
if known and not REPEATED_CLAIM then
  return look_again(known)
elseif withdrawn and not FORGOTTEN_WITHDRAW then
  return { 'absent' }
end

mode = tonumber(mode)
local blocked = is_blocked(mode)
if blocked and reap() then
  promote()
  blocked = is_blocked(mode)
end
if not blocked then
  return enter_granted()
elseif not may_wait then
  return { 'absent' }
end
local ticket = enter()
put(id, mode, ticket, WAITS, owner)
contend(id, mode)
return { 'waiting', look_after(mode, ticket) }
