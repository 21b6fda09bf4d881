-- Takes paths out of an index whose records have expired.
--
-- KEYS: 1 the index, then the records. ARGV: their paths, in the same order.
for i = 1, #ARGV do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return #ARGV
