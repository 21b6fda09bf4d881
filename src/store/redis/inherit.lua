-- Makes a space go on from where another ended. state.lua stands before it.
--
-- KEYS: 1 the state, 2 the bucket ends (ZSET), 3 the bucket sums (HASH), 4 the
--   openings (HASH). ARGV: 1 what is inherited, then names and contents of pages
--   of openings. Layouts are those of inherit.rs.
-- Answers as commit.lua does.

local viewed, epoch, generation, version, metered, last, high, low, counted, bytes_high,
  bytes_low, held, told, ended = unpack_bytes('>BI6I6I7BI6I6I6I7I2I6I7I6I6', ARGV[1])

if removed == 1 then return 'G' end
if removed == 2 then return 'W' end
if viewed == 1 and (epoch ~= ep or generation ~= gen) then
  return 'S' .. pack('>I6I6', ep, gen)
end

if seq < version then seq = version end
if ep == 0 then ep = 1 end
if metered == 1 then
  call('DEL', KEYS[4])
  for i = 2, #ARGV, 2 do call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
  at, integral_high, integral_low, operations, carried_high, carried_low =
    last, high, low, counted, bytes_high, bytes_low
  expired = ended
  -- First to where the other was read, then over the gap, in which nothing was held.
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for _, move in ipairs({ { told, at > 0 and held or 0 }, { now, 0 } }) do
    local to, over = unpack(move)
    if to > at then
      if at < to - to % 60000 then
        open(to, at, integral_high, integral_low, operations, carried_high, carried_low, over)
      end
      integral_high, integral_low = integrate(integral_high, integral_low, over, to - at)
      at = to
    end
  end
end

local saved = pack(STATE, format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
  at, integral_high, integral_low, operations, carried_high, carried_low, expired)
call('SET', KEYS[1], saved .. pin)
return 'K' .. saved
