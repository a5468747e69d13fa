-- Shared by the scripts that take a claim out: the way of a granted one, and whether it was one.
local function leave(id)
  if UNCHECKED_RELEASE then
    id = redis.call('ZRANGE', lock, 0, LAST_HELD, 'BYSCORE', 'LIMIT', 0, 1)[1] or id
  end
  local was_held = redis.call('ZREM', lock, id) == 1
  if was_held then
    local mine = place(id)
    redis.call('ZREMRANGEBYLEX', claims, '[' .. mine, '(' .. mine .. ':')
  end
  return was_held
end
