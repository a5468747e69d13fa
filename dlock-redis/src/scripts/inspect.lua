-- One lock's claims, those of lapsed sessions left out: claim id, record, claim id, record, ...
local all = redis.call('HGETALL', KEYS[2])
local living = {}
for place = 1, #all, 2 do
  local lapse = tonumber(redis.call('ZSCORE', leases, string.sub(all[place], 1, 32)) or 0)
  if lapse > now and all[place + 1] ~= '-' then
    table.insert(living, all[place])
    table.insert(living, all[place + 1])
  end
end
return living
