-- Reads records as they were when the space was pinned. point.lua stands before it.
--
-- KEYS: 1 the state, then the records, which are the space's own or were moved out
--   of the way.
-- ARGV: 1 the id of the pin, 2 the most bytes of one record, 3 after how many bytes
--   of all records the answer ends, then the name in the space that each record has
--   or had.
-- Answers for each record its beginning (empty where it is not there, or is newer)
-- and its length; or L where the pin is lost.

if not lasts then return 'L' end
local answer, sum, most = {}, 0, tonumber(ARGV[2])
for i = 2, #KEYS do
  local key = KEYS[i]
  local stored = redis.pcall('GETRANGE', key, 0, most - 1)
  local length = 0
  if type(stored) == 'table' then stored = '' end
  if #stored >= 20 and struct.unpack('>I7', stored, 2) > version then stored = '' end
  if stored ~= '' then
    length = #stored < most and #stored or call('STRLEN', key)
    if touched == 1 then
      local head = call('GET', list .. ':t:' .. ARGV[i + 2])
      if head then stored = head .. string.sub(stored, 21) end
    end
  end
  answer[2 * i - 3], answer[2 * i - 2] = stored, length
  sum = sum + #stored
  if sum >= tonumber(ARGV[3]) then break end
end
return answer
