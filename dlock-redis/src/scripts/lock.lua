-- Shared by the scripts that touch a lock: its keys, and how a claim is written down. Little, because
-- the server runs all of a script's text at each call: what only some calls need is in queue.lua.
--
-- Every key is declared, and all are of one hash slot. When the slot is on its way to another node
-- the server refuses the whole script; it never stops half way.
local last = KEYS[2]   -- string: the greatest number given out in the partition's order
local claims = KEYS[3] -- sorted set, all scores 0: which session has what in this partition,
                       --   <session> <name>\0<number><record>, in the order of the bytes.
                       --   A record is "mode ticket order since owner", and the order is 0 while
                       --   the claim waits; or it is "-", the mark of a withdrawn claim
local lock = KEYS[4]   -- sorted set: the lock's queue, by position. There is none of a free lock:
                       --   0 to 5   the modes, from NL to EX: ids of granted claims
                       --   6 to 11  the modes, from EX to NL: ticket and id of waiting claims
                       --   12       "-" and the id of a withdrawn claim, its mark
local LAST_HELD, FIRST_WAITING, LAST_WAITING, MARKED = 5, 6, 11, 12
local WAITS = '0'
local MARK = '-'
local ID_LENGTH = 49
-- The keys begin alike: '…:leases', '…:n:<name>'.
local name = string.sub(lock, #KEYS[1] - 3)

local function session_of(id)
  return string.sub(id, 1, 32)
end

-- What a claim's member of `claims` begins with. A record goes on with a digit or a MARK, both of
-- which come before ':'. So all from this up to this and ':' is of this claim.
local function place(id)
  return session_of(id) .. ' ' .. name .. '\0' .. string.sub(id, -16)
end
