-- Ends a pin; what was kept for it is for its caller to remove. point.lua stands
-- before it.
--
-- KEYS: 1 the state. ARGV: 1 the id of the pin.

if not found then return 0 end
if string.sub(state, 3, 8) == string.rep('\0', 6) then
  -- Nothing but the pin was ever written.
  call('DEL', KEYS[1])
else
  call('SET', KEYS[1], (string.byte(state, 2) == 2 and '\4' or '\3') .. string.sub(state, 2, 92))
end
return 1
