-- The beginnings and lengths of records, as of one moment.
--
-- KEYS: 1 the state, then the records. ARGV: 1 the offset of the last byte
--   wanted of a record.
-- Answers the state, then for each record its beginning (empty where it is
-- absent or no string) and its length.
local answer = { redis.call('GET', KEYS[1]) or '' }
for i = 2, #KEYS do
  local record = redis.pcall('GETRANGE', KEYS[i], 0, ARGV[1])
  if type(record) == 'table' then record = '' end
  answer[2 * i - 2] = record
  answer[2 * i - 1] = record == '' and 0 or redis.call('STRLEN', KEYS[i])
end
return answer
