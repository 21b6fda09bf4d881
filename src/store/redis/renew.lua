-- Lets a pin last anew from now, and what is kept for it. point.lua stands before
-- it.
--
-- KEYS: 1 the state. ARGV: 1 the id of the pin, 2 and 3 the first and the last of
--   what is kept that is looked at now; those not looked at last long enough for
--   another call to come to them.
-- Answers how much is kept, or -1 where the pin is lost.

if not lasts then return -1 end
if ARGV[2] == '0' then
  stop = now + life
  call('SET', KEYS[1],
    string.sub(state, 1, 113) .. struct.pack('>I6', stop) .. string.sub(state, 120))
  call('PEXPIREAT', list, stop + life)
end
local kept = call('LRANGE', list, ARGV[2], ARGV[3])
for i = 1, #kept do
  local name
  if string.byte(kept[i]) == 116 then
    name = 't:' .. string.sub(kept[i], 2)
  else
    name = string.format('%d', ARGV[2] + i - 1)
  end
  call('PEXPIREAT', list .. ':' .. name, stop + life)
end
return call('LLEN', list)
