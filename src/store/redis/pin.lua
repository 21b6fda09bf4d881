-- Pins a space. state.lua stands before it.
--
-- KEYS: 1 the state, 2 to 4 as commit.lua has them.
-- ARGV: 1 the id of the pin, 2 for how many milliseconds it lasts, 3 how many bytes
--   may be kept for it.
-- Answers P, the time and the state; or G where the space was removed, M where
-- buckets are to be reaped first, T and until when another pin lasts.

if removed == 1 then return 'G' end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if due > 0 and due < now then return 'M' end
if format == 5 then
  local stop = unpack_bytes('>I6', pin, 22)
  if now <= stop then return 'T' .. pack('>I6', stop) end
end
local life = tonumber(ARGV[2])
local saved = pack(STATE, 5, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
  at, integral_high, integral_low, operations, carried_high, carried_low, expired)
call('SET', KEYS[1], saved .. pack('>c8I7I6I6I6I7I7B', ARGV[1], seq, gen, now + life, life,
  tonumber(ARGV[3]), 0, 0))
return 'P' .. pack('>I6', now) .. saved
