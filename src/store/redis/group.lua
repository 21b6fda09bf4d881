-- Applies several batches to one space, each by itself and in order: state.lua and
-- keep.lua stand before this, and commit.lua as the function `apply`, which does for a
-- batch what the script does whose only one it is.
--
-- KEYS: 1 to 4 as commit.lua has them, then of each batch what follows those.
-- ARGV: 1 how many keys and arguments each batch has, in two bytes each, then of each
--   batch its arguments.
--
-- The answer has that of each batch. One that was refused may have counted before it
-- was, and the state here is no longer the one that is stored: so the answers end with
-- it, and what comes behind is to be asked again.

local answers = {}
local key, arg = 5, 2
for batch = 1, #ARGV[1] / 4 do
  local keys, args = unpack_bytes('>I2I2', ARGV[1], 4 * batch - 3)
  local ran, answer = pcall(apply,
    { KEYS[1], KEYS[2], KEYS[3], KEYS[4], unpack(KEYS, key, key + keys - 1) },
    { unpack(ARGV, arg, arg + args - 1) })
  if not ran and type(answer) ~= 'table' then answer = redis.error_reply(answer) end
  answers[batch] = answer
  local tag = type(answer) == 'string' and byte(answer)
  if tag ~= 75 and tag ~= 107 then break end
  key, arg = key + keys, arg + args
end
return answers
