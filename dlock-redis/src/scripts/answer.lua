-- Shared by the scripts that tell a claim's state, once it is in the store (ONCE).
local function answer(claim)
  if claim.order == WAITS then
    return { 'waiting', look_after(claim.mode, claim.ticket) }
  end
  if answers_are_confirmed then
    -- WAIT confirms the writes of its own connection alone: let there be one (COMMITTED).
    redis.call('SET', last, redis.call('GET', last) or 0)
  end
  return { 'granted', tonumber(claim.order) }
end

-- The state of a claim, after freeing what stands in its way and belongs to nobody.
local function look_again(claim)
  if claim.order == WAITS then
    reap()
    promote()
    claim = find(id)
  end
  return answer(claim)
end
