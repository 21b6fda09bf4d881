-- What a script that works on a pin knows of it: whether it is the space's, and
-- whether it lasts. pins.rs tells the layout of what follows a state.
--
-- KEYS: 1 the state. ARGV: 1 the id of the pin.

local call = redis.call
local state = call('GET', KEYS[1])
local found = state and #state == 140 and string.byte(state) == 5
  and string.sub(state, 93, 100) == ARGV[1]
local version, stop, life, touched, now = 0, 0, 0, 0, 0
if found then
  version, stop, life = struct.unpack('>I7xxxxxxI6I6', state, 101)
  touched = string.byte(state, 140)
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lasts = found and now <= stop
local list = string.sub(KEYS[1], 1, -2) .. 'y:' .. ARGV[1]

