-- Shared by the scripts that touch a lock: one lock's claims, and the rule by which they are granted.
--
-- The rule (FAIR): a claim is granted when it is compatible with every claim ahead of it, waiting
-- ones included. A new claim is behind all others, so it is compared with all holders and all
-- waiters, by counts of each mode. When a claim leaves, only the first waiter of each mode can be
-- next, because claims of one mode wait for the same things: so nothing here reads the queue.
--
-- Every key is declared, and all are of one hash slot. When the slot is on its way to another
-- node the server refuses the whole script; it never stops half way.
local last = KEYS[2]    -- string: the greatest number given out in the partition's order
local claims = KEYS[3]  -- sorted set, all scores 0: which session has what in this partition,
                        --   <session>c<name>\0<number> for a claim, ...m... for a mark
local records = KEYS[4] -- hash: claim id -> "mode ticket order since owner", or "-", the mark of
                        --   a withdrawn claim; the order is 0 while the claim waits
local holders = KEYS[5] -- sorted set: mode -> claim id, of the granted claims
local waiters = KEYS[6] -- sorted set: mode -> ticket and claim id, of the waiting claims

local channel = ARGV[1] -- what stands before a session's id in the name of its channel
local name = ARGV[2]
local WITHDRAWN = '-'

-- The next number in the partition's order: for tickets and tokens, on the scale of microseconds
-- since 1970, so that they rise even when all data is lost (FENCE). Lua's numbers are doubles:
-- exact below 2^53, which lasts until 2255, but never printed with tostring().
local number = tonumber(redis.call('GET', last) or 0)
local function next_number()
  number = math.max(number + 1, TOKENS_FROM_ZERO and 0 or time[1] * 1000000 + time[2])
  redis.call('SET', last, string.format('%.0f', number))
  return number
end

local function session_of(id)
  return string.sub(id, 1, 32)
end

local function read(id)
  local record = redis.call('HGET', records, id)
  if not record or record == WITHDRAWN then
    return nil, record == WITHDRAWN
  end
  local mode, ticket, order, owner = string.match(record, '^(%d) (%d+) (%d+) %d+ (.*)$')
  return { mode = tonumber(mode), ticket = ticket, order = tonumber(order), owner = owner }
end

local function write(id, claim)
  redis.call('HSET', records, id, claim.mode .. ' ' .. claim.ticket .. ' '
    .. string.format('%.0f %.0f ', claim.order, now) .. claim.owner)
end

-- The claim's (kind 'c') or the mark's (kind 'm') place in the sessions' index.
local function place(kind, id)
  return session_of(id) .. kind .. name .. '\0' .. string.sub(id, -16)
end

local function remove(id, claim)
  redis.call('HDEL', records, id)
  redis.call('ZREM', claims, place('c', id))
  if claim.order > 0 then
    redis.call('ZREM', holders, id)
  else
    redis.call('ZREM', waiters, claim.ticket .. id)
  end
end

local function conflict(set, mode)
  for _, range in ipairs(CONFLICTS[mode].ranges) do
    if redis.call('ZCOUNT', set, range[1], range[2]) > 0 then
      return true
    end
  end
  return false
end

-- Whether a claim ahead of a new one in this mode conflicts with it.
local function is_blocked(mode)
  return conflict(holders, mode) or not OVERTAKING and conflict(waiters, mode)
end

-- The sessions that wait in modes that conflict with `mode`: none, one, or two of them, as far as the
-- first few waiters of each show. It is for hints alone.
local function rivals(mode, except)
  local found = {}
  for _, range in ipairs(CONFLICTS[mode].ranges) do
    local members = redis.call('ZRANGE', waiters, range[1], range[2], 'BYSCORE', 'LIMIT', 0, 7)
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

local function publish(id, message)
  redis.call('PUBLISH', channel .. session_of(id), message)
end

-- Frees what lapsed sessions left of this lock, and says whether that was anything (LIVE-A). A
-- session that has nothing left in the partition is declared dead.
local function reap()
  local freed = false
  if UNSWEPT_CLAIMS then
    return freed
  end
  for _, session in ipairs(redis.call('ZRANGE', leases, 1, now, 'BYSCORE')) do
    for _, kind in ipairs({ 'c', 'm' }) do
      local mine = session .. kind .. name
      local members = redis.call('ZRANGE', claims, '[' .. mine .. '\0', '(' .. mine .. '\1', 'BYLEX')
      for _, member in ipairs(members) do
        local id = session .. '-' .. string.sub(member, -16)
        local claim = read(id)
        if claim then
          remove(id, claim)
          freed = true
        end
        redis.call('HDEL', records, id)
        redis.call('ZREM', claims, member)
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
  local head, ticket, held = {}, {}, {}
  local function advance(mode)
    local member = redis.call('ZRANGE', waiters, mode, mode, 'BYSCORE', 'LIMIT', 0, 1)[1]
    head[mode] = member
    ticket[mode] = member and tonumber(string.sub(member, 1, 16))
  end
  local function is_held(mode)
    if held[mode] == nil then
      held[mode] = redis.call('ZCOUNT', holders, mode, mode) > 0
    end
    return held[mode]
  end
  local function is_next(mode)
    for _, other in ipairs(CONFLICTS[mode].modes) do
      if ticket[other] and ticket[other] < ticket[mode] or is_held(other) then
        return false
      end
    end
    return true
  end
  for mode = 0, 5 do
    advance(mode)
  end
  local granted = {}
  while true do
    local first
    for mode = 0, 5 do
      if head[mode] and not (first and ticket[first] < ticket[mode]) and is_next(mode) then
        first = mode
      end
    end
    if not first then
      break
    end
    local id = string.sub(head[first], 17)
    local claim = read(id)
    redis.call('ZREM', waiters, head[first])
    if claim then
      claim.order = next_number()
      redis.call('ZADD', holders, claim.mode, id)
      write(id, claim)
      held[first] = true
      table.insert(granted, { id = id, claim = claim })
    end
    advance(first)
  end
  -- Whoever still waits in a mode that conflicts with a granted claim waits behind it.
  for _, grant in ipairs(granted) do
    local found = rivals(grant.claim.mode)
    local contended = found[2] or found[1] and found[1] ~= session_of(grant.id)
    publish(grant.id, 'granted ' .. grant.id .. string.format(' %.0f', grant.claim.order)
      .. (contended and ' contended' or ''))
  end
end

-- Tells the holders that a new claim of `mode` waits behind them, unless they know that another
-- session waits. Done once for each holder: later waiters find two sessions waiting, or one that is
-- not the holder's, and tell nobody.
local function contend(id, mode)
  for _, other in ipairs(CONFLICTS[mode].modes) do
    local known = rivals(other, id)
    if not known[2] then
      for _, holder in ipairs(redis.call('ZRANGE', holders, other, other, 'BYSCORE')) do
        local session = session_of(holder)
        if session ~= session_of(id) and (not known[1] or known[1] == session) then
          publish(holder, 'contended ' .. holder)
        end
      end
    end
  end
end

-- Milliseconds until the lease of something ahead of this claim could run out (WAKE): of the
-- conflicting holders and of the first conflicting waiters. Where more are ahead, the first lease of
-- the whole partition stands for the rest. Too early is a look in vain; too late would leave the lock
-- with somebody who crashed in the queue and was granted it afterwards (LIVE-A).
local function look_after(mode, ticket)
  local soonest = now + 1000
  local known = false
  local function consider(lapse)
    if lapse > 0 and (not known or lapse < soonest) then
      soonest, known = lapse, true
    end
  end
  local function consider_claim(id)
    local session = session_of(id)
    local lapse = redis.call('ZSCORE', leases, session)
    if not lapse then
      -- Somebody deleted the leases. Its claims are free: the next look reaps them.
      redis.call('ZADD', leases, now, session)
    end
    consider(tonumber(lapse or now))
  end
  local more = redis.call('ZCARD', waiters) > 2
  for _, range in ipairs(CONFLICTS[mode].ranges) do
    local ids = redis.call('ZRANGE', holders, range[1], range[2], 'BYSCORE', 'LIMIT', 0, 9)
    for _, id in ipairs(ids) do
      consider_claim(id)
    end
    more = more or ids[9] ~= nil
  end
  for _, other in ipairs(CONFLICTS[mode].modes) do
    local member = redis.call('ZRANGE', waiters, other, other, 'BYSCORE', 'LIMIT', 0, 1)[1]
    if member and string.sub(member, 1, 16) < ticket then
      consider_claim(string.sub(member, 17))
    end
  end
  if more then
    local first = redis.call('ZRANGE', leases, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
    consider(tonumber(first[2] or 0))
  end
  return math.max(1, soonest - now + 1)
end
