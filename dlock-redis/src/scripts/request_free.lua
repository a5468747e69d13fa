-- The first part of a request, and mostly all of it: one for a lock that is free.
local mode = ARGV[6]
local owner = ARGV[7]

local standing = lease()
if standing == 'gone' then
  return { 'lapsed' }
end

-- The claim's place in the order: its ticket, and its token if it is granted now.
local function enter()
  if standing == 'missing' then
    make_lease()
  end
  return next_number()
end

local function enter_granted()
  local order = enter()
  put(id, mode, order, order, owner)
  return { 'granted', tonumber(order) }
end

-- Where no queue is, no claim is ahead, nor this one, nor a mark of it.
if redis.call('EXISTS', lock) == 0 then
  return enter_granted()
end
