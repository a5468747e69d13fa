-- Shared by the scripts that look at more of a lock than one claim: the rule by which it is granted.
--
-- The rule (FAIR): a claim is granted when it is compatible with every claim ahead of it, waiting
-- ones included. A new claim is behind all others, so it is compared with all holders and all
-- waiters, by counts of each mode. When a claim leaves, only the first waiter of each mode can be
-- next, because claims of one mode wait for the same things: so nothing here reads the queue.

-- The claim's record as it is in the store: nothing, or what read() makes of it. A mark is told by
-- the second result.
local function find(id)
  local mine = place(id)
  local member = redis.call('ZRANGE', claims, '[' .. mine, '(' .. mine .. ':', 'BYLEX', 'LIMIT', 0, 1)[1]
  local record = member and string.sub(member, #mine + 1)
  if not record or record == MARK then
    return nil, record == MARK
  end
  local mode, ticket, order, owner = string.match(record, '^(%d) (%d+) (%d+) %d+ (.*)$')
  return { mode = tonumber(mode), ticket = ticket, order = order, owner = owner, member = member }
end

local function remove(id, claim)
  redis.call('ZREM', claims, claim.member)
  redis.call('ZREM', lock, claim.order == WAITS and claim.ticket .. id or id)
end

-- The first member at these positions, and its position.
local function first_at(from, to)
  local found = redis.call('ZRANGE', lock, from, to, 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return found[1], tonumber(found[2])
end

local function conflicts(mode, position)
  for _, range in ipairs(conflicting(mode)) do
    if range[1] <= position and position <= range[2] then
      return true
    end
  end
  return false
end

-- Whether a claim ahead of a new one in this mode conflicts with it.
local function is_blocked(mode)
  for _, range in ipairs(conflicting(mode)) do
    local to = OVERTAKING and math.min(range[2], LAST_HELD) or range[2]
    if redis.call('ZCOUNT', lock, range[1], to) > 0 then
      return true
    end
  end
  return false
end

-- The sessions that wait in modes that conflict with `mode`: none, one, or two of them, as far as the
-- first few waiters of each show. It is for hints alone.
local function rivals(mode, except)
  local found = {}
  for _, range in ipairs(conflicting(mode)) do
    local from = math.max(range[1], FIRST_WAITING)
    local members = from <= range[2]
      and redis.call('ZRANGE', lock, from, range[2], 'BYSCORE', 'LIMIT', 0, 7) or {}
    for _, member in ipairs(members) do
      local id = string.sub(member, 17)
      local session = session_of(id)
      if id ~= except and session ~= found[1] then
        table.insert(found, session)
        if found[2] then
          return found
        end
      end
    end
  end
  return found
end

-- To the channel of the session: the keys are of '{<namespace>.<partition>}'.
local function publish(id, message)
  local namespace = string.match(leases, '^(.*)%.%d+}:leases$')
  redis.call('PUBLISH', namespace .. '}:s:' .. session_of(id), message)
end

-- Frees what lapsed sessions left of this lock, and says whether that was anything (LIVE-A). A
-- session that has nothing left in the partition is declared dead.
local function reap()
  local freed = false
  if UNSWEPT_CLAIMS then
    return freed
  end
  for _, session in ipairs(redis.call('ZRANGE', leases, 1, now, 'BYSCORE')) do
    local mine = session .. ' ' .. name
    local members = redis.call('ZRANGE', claims, '[' .. mine .. '\0', '(' .. mine .. '\1', 'BYLEX')
    for _, member in ipairs(members) do
      local id = session .. '-' .. string.sub(member, #mine + 2, #mine + 17)
      local claim = find(id)
      if claim then
        remove(id, claim)
        freed = true
      else
        redis.call('ZREM', claims, member)
        redis.call('ZREM', lock, MARK .. id)
      end
    end
    local rest = redis.call('ZRANGE', claims, '[' .. session, '(' .. session .. '~', 'BYLEX', 'LIMIT', 0, 1)
    if not rest[1] then
      redis.call('ZADD', leases, -now, session)
    end
  end
  return freed
end

-- Grants every claim that is compatible with all ahead of it, in the order of their tickets. Lapsed
-- sessions' claims must be gone: call reap() before.
local function promote()
  local first = {} -- of each position
  local member, position = first_at(0, LAST_WAITING)
  while member do
    first[position] = member
    member, position = first_at(position + 1, LAST_WAITING)
  end
  local function is_next(mode, waiter)
    for position, other in pairs(first) do
      if (position <= LAST_HELD or other < waiter) and conflicts(mode, position) then
        return false
      end
    end
    return true
  end
  local granted = {}
  while true do
    local waiter, mode
    for candidate = 0, LAST_HELD do
      local member = first[LAST_WAITING - candidate]
      if member and not (waiter and waiter < member) and is_next(candidate, member) then
        waiter, mode = member, candidate
      end
    end
    if not waiter then
      break
    end
    local id = string.sub(waiter, 17)
    local claim = find(id)
    if claim then
      remove(id, claim)
      local order = next_number()
      put(id, mode, claim.ticket, order, claim.owner)
      first[mode] = id
      table.insert(granted, { id = id, mode = mode, order = order })
    else
      redis.call('ZREM', lock, waiter)
    end
    -- Behind a grant of a mode that conflicts with itself, nobody else of that mode is next.
    local position = LAST_WAITING - mode
    first[position] = nil
    if not (claim and conflicts(mode, mode)) then
      first[position] = first_at(position, position)
    end
  end
  -- Whoever still waits in a mode that conflicts with a granted claim waits behind it.
  for _, grant in ipairs(granted) do
    local found = rivals(grant.mode)
    local contended = found[2] or found[1] and found[1] ~= session_of(grant.id)
    publish(grant.id, 'granted ' .. grant.id .. ' ' .. grant.order .. (contended and ' contended' or ''))
  end
end

-- Tells the holders that a new claim of `mode` waits behind them, unless they know that another
-- session waits. Done once for each holder: later waiters find two sessions waiting, or one that is
-- not the holder's, and tell nobody.
local function contend(id, mode)
  for _, range in ipairs(conflicting(mode)) do
    local to = math.min(range[2], LAST_HELD)
    local position = range[1]
    while position <= to do
      local _, held = first_at(position, to)
      if not held then
        break
      end
      position = held + 1
      local known = rivals(held, id)
      local holders = known[2] and {} or redis.call('ZRANGE', lock, held, held, 'BYSCORE')
      for _, holder in ipairs(holders) do
        local session = session_of(holder)
        if session ~= session_of(id) and (not known[1] or known[1] == session) then
          publish(holder, 'contended ' .. holder)
        end
      end
    end
  end
end

-- Milliseconds until the lease of something ahead of this claim could run out (WAKE). Where more is
-- ahead than the first few, the first lease of the whole partition stands for the rest. Too early is a
-- look in vain; too late would leave the lock with somebody who crashed in the queue and was granted it
-- afterwards (LIVE-A).
local function look_after(mode, ticket)
  local FEW = 4
  local ahead, more = {}, false
  for _, range in ipairs(conflicting(mode)) do
    local members = redis.call('ZRANGE', lock, range[1], range[2], 'BYSCORE', 'LIMIT', 0, FEW)
    more = more or members[FEW] ~= nil
    for _, member in ipairs(members) do
      if #member == ID_LENGTH or string.sub(member, 1, 16) < ticket then
        table.insert(ahead, session_of(string.sub(member, -ID_LENGTH)))
      end
    end
  end
  local soonest
  local function consider(lapse)
    if lapse > 0 and (not soonest or lapse < soonest) then
      soonest = lapse
    end
  end
  local lapses = ahead[1] and redis.call('ZMSCORE', leases, unpack(ahead)) or {}
  for place, session in ipairs(ahead) do
    if not lapses[place] then
      -- Somebody deleted the leases. Its claims are free: the next look reaps them.
      redis.call('ZADD', leases, now, session)
    end
    consider(tonumber(lapses[place] or now))
  end
  if more then
    local first = redis.call('ZRANGE', leases, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    consider(tonumber(first[2] or 0))
  end
  return math.max(1, (soonest or now + 1000) - now + 1)
end
