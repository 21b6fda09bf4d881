-- Tells the last note of a log. One without any gets an empty note, which nobody
-- reads: there is no place before it.
--
-- KEYS: 1 the log (STREAM).
-- ARGV: 1 the empty note, 2 for how many milliseconds it is kept.

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if not last[1] then
  redis.call('XADD', KEYS[1], '*', 'n', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
end
return last
