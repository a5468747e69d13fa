-- One lock's claims, those of lapsed sessions left out: claim id, record, claim id, record, ...
local living = {}
for _, member in ipairs(redis.call('ZRANGE', lock, 0, LAST_WAITING, 'BYSCORE')) do
  local id = string.sub(member, -ID_LENGTH)
  local lapse = tonumber(redis.call('ZSCORE', leases, session_of(id)) or 0)
  if lapse > now then
    local mine = place(id)
    local found = redis.call('ZRANGE', claims, '[' .. mine, '(' .. mine .. ':', 'BYLEX', 'LIMIT', 0, 1)
    if found[1] then
      table.insert(living, id)
      table.insert(living, string.sub(found[1], #mine + 1))
    end
  end
end
return living
