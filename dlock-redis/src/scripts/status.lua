-- The state of a claim: the truth, after a push or because time has passed.
if lease() == 'gone' then
  return { 'lapsed' }
end
local claim = find(id)
if not claim then
  return { 'absent' }
end
return look_again(claim)
