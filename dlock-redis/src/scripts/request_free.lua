-- The first part of a request, and mostly all of it: one for a lock that is free.
-- Where no queue is, no claim is ahead, nor this one, nor a mark of it.
if redis.call('EXISTS', lock) == 0 then
  return enter_granted()
end
