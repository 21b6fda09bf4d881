-- A page of an ordered table, as of one moment.
--
-- KEYS: 1 the state, 2 the index. ARGV: 1 what record keys begin with, 2 and 3
--   the range of paths as ZRANGEBYLEX reads it, 4 the most paths, 5 the offset
--   of the last byte wanted of a record.
-- Answers the state, then for each path: itself, the record's beginning, its
-- length. A path whose record has expired is answered with an empty record.
local paths = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local answer = { redis.call('GET', KEYS[1]) or '' }
for i = 1, #paths do
  local key = ARGV[1] .. paths[i]
  local record = redis.call('GETRANGE', key, 0, ARGV[5])
  answer[3 * i - 1] = paths[i]
  answer[3 * i] = record
  answer[3 * i + 1] = record == '' and 0 or redis.call('STRLEN', key)
end
return answer
