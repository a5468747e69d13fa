-- Frees what lapsed sessions left of this lock, and grants it to whoever is next (LIVE-A).
if reap() then
  promote()
end
