-- The counters of rows, as of one moment.
--
-- KEYS: 1 the state, then the rows. Answers for each its names and counters in
--   turn; for all of them none where the space was removed.
local answer = {}
local state = redis.call('GET', KEYS[1])
local removed = state and string.byte(state, 2) == 1
for i = 2, #KEYS do answer[i - 1] = removed and {} or redis.call('HGETALL', KEYS[i]) end
return answer
