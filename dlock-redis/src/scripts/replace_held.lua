-- The first part of a replacement, before its request: a granted claim leaves.
local leaving = ARGV[8]
local freed = leave(leaving)
