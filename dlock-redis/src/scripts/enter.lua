-- Shared by the scripts that ask for a lock: how a claim gets into its queue.
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
