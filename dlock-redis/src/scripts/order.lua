-- Shared by the scripts that grant: the partition's order, and a claim's way into the store.

-- The next number in the partition's order: for tickets and tokens, on the scale of microseconds
-- since 1970, so that they rise even when all data is lost (FENCE), and so far apart that the holder's
-- process has tokens for its hand-overs. As text of 16 digits, of which the
-- smaller comes first in the order of the bytes. Lua's numbers are doubles: exact below 2^53, which
-- lasts until 2255, but never printed with tostring().
local function next_number()
  local number = TOKENS_FROM_ZERO and 0 or time[1] * 1000000 + time[2]
  local text = string.format('%016.0f', number)
  local before = tonumber(redis.call('SET', last, text, 'GET') or 0)
  if before >= number then
    text = string.format('%016.0f', before + ORDER_STEP)
    redis.call('SET', last, text)
  end
  return text
end

local function put(id, mode, ticket, order, owner)
  if order == WAITS then
    redis.call('ZADD', lock, LAST_WAITING - mode, ticket .. id)
  else
    redis.call('ZADD', lock, mode, id)
  end
  redis.call('ZADD', claims, 0, place(id)
    .. string.format('%s %s %s %.0f %s', mode, ticket, order, now, owner))
end
