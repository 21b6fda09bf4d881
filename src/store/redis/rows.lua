-- The counters of rows, as of one moment.
--
-- KEYS: the rows. Answers for each its names and counters in turn.
local answer = {}
for i = 1, #KEYS do answer[i] = redis.call('HGETALL', KEYS[i]) end
return answer
