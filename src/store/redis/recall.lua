-- Until when names of tallies are remembered, as of one moment.
--
-- KEYS: 1 the state, then the names, at most 128. Answers for each when it ends, in ms
--   since 1970; no positive number where it is not there, or the space was removed.
local answer = {}
local state = redis.call('GET', KEYS[1])
local removed = state and string.byte(state, 2) == 1
for i = 2, #KEYS do answer[i - 1] = removed and 0 or redis.call('PEXPIRETIME', KEYS[i]) end
return answer
