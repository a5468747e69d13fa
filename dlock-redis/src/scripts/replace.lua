-- The rest of what leaves, waiting or granted; whom that grants comes before who asks (FAIR).
local claim = not freed and find(leaving)
if claim then
  remove(leaving, claim)
  freed = true
end
if freed and first_at(FIRST_WAITING, LAST_WAITING) then
  reap()
  promote()
end
