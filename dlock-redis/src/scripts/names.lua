-- One page of the locks in use: where the next page begins ('' after the last), then the names of
-- the claims on this one, those of lapsed sessions left out.
local claims = KEYS[2]
local from = ARGV[1] -- '-', or '(' and the last member of the page before
local PAGE = 500

local members = redis.call('ZRANGE', claims, from, '+', 'BYLEX', 'LIMIT', 0, PAGE)
local page, stands = { '' }, {}
for _, member in ipairs(members) do
  local session = string.sub(member, 1, 32)
  if stands[session] == nil then
    stands[session] = tonumber(redis.call('ZSCORE', leases, session) or 0) > now
  end
  if stands[session] and string.sub(member, 33, 33) == 'c' then
    table.insert(page, string.sub(member, 34, -18))
  end
end
if #members == PAGE then
  page[1] = '(' .. members[PAGE]
end
return page
