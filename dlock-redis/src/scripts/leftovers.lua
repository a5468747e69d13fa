-- The names of locks of which lapsed sessions left claims or marks. Each is then reaped by a call of
-- its own, which declares that name's keys. At most `limit` of them. A lapsed session that left
-- nothing is declared dead.
local claims = KEYS[2]
local limit = tonumber(ARGV[1])

local names, seen = {}, {}
for _, session in ipairs(redis.call('ZRANGE', leases, 1, now, 'BYSCORE', 'LIMIT', 0, limit)) do
  local members = redis.call('ZRANGE', claims, '[' .. session, '(' .. session .. '~', 'BYLEX',
    'LIMIT', 0, math.max(1, limit - #names))
  for _, member in ipairs(members) do
    local name = string.sub(member, 34, string.find(member, '\0', 34, true) - 1)
    if not seen[name] then
      seen[name] = true
      table.insert(names, name)
    end
  end
  if not members[1] then
    redis.call('ZADD', leases, -now, session)
  end
end
return names
