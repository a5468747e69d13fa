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
  local end_of_name = string.find(member, '\0', 34, true)
  local is_mark = string.sub(member, end_of_name + 17) == '-'
  if stands[session] and not is_mark then
    table.insert(page, string.sub(member, 34, end_of_name - 1))
  end
end
if #members == PAGE then
  page[1] = '(' .. members[PAGE]
end
return page
