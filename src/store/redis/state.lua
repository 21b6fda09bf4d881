-- The state of a space, its counters and meters, for the scripts that move them:
-- script.rs puts this before them. KEYS[1] is the state, KEYS[4] the openings;
-- state.rs has their layouts.
--
-- The meters stand as of the last move, at `at`. The bytes carried, and the integral
-- of bytes held over time, outgrow Lua's exact numbers, so each is kept in two:
-- wholes of 2^48 and the rest. Whoever changes `bytes` advances the integral first,
-- with what was held. `removed` is 1 where the space was, and 2 where it is fenced: then
-- the format is 4, which a release that knows no fence refuses. While the space is
-- pinned it is 5, and what is known of the pin follows the rest: pins.rs has it. A
-- function costs each variable that it shares with its script, on every call; so these
-- share next to none.

local call, KEYS, ARGV = redis.call, KEYS, ARGV
local pack, unpack_bytes, byte = struct.pack, struct.unpack, string.byte
local STATE = '>BBI6I6I7I7I6I7I6I6I6I6I6I7I2I6I6'

local state = call('GET', KEYS[1])
local format, pin = 3, ''
local removed, ep, gen, seq, bytes, entries, orphaned, mark, due = 0, 0, 0, 0, 0, 0, 0, 0, 0
local at, integral_high, integral_low, operations, carried_high, carried_low = 0, 0, 0, 0, 0, 0
local expired = 0
if state then
  local former
  if #state == 92 and (byte(state) == 3 or byte(state) == 4) then
    format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
      at, integral_high, integral_low, operations, carried_high, carried_low, expired =
      unpack_bytes(STATE, state)
  elseif #state == 140 and byte(state) == 5 then
    format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
      at, integral_high, integral_low, operations, carried_high, carried_low, expired =
      unpack_bytes(STATE, state)
    pin = string.sub(state, 93)
  elseif #state == 86 and byte(state) == 2 then
    former, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
      at, integral_high, integral_low, operations, carried_high, carried_low =
      unpack_bytes('>BBI6I6I7I7I6I7I6I6I6I6I6I7I2I6', state)
  elseif #state == 53 and byte(state) == 1 then
    former, removed, ep, gen, seq, bytes, entries, orphaned, mark, due =
      unpack_bytes('>BBI6I6I7I7I6I7I6I6', state)
  else
    return redis.error_reply('CORRUPT the state of a space')
  end
end

-- The integral after `held` bytes were held for so long; both below 2^52.
local function integrate(high, low, held, span)
  if held * span < 2 ^ 52 then
    low = low + held * span
  else
    local held_low, span_low = held % 2 ^ 24, span % 2 ^ 24
    local held_high, span_high = (held - held_low) / 2 ^ 24, (span - span_low) / 2 ^ 24
    local middle = held_high * span_low + held_low * span_high
    local middle_low = middle % 2 ^ 24
    high = high + held_high * span_high + (middle - middle_low) / 2 ^ 24
    low = low + middle_low * 2 ^ 24 + held_low * span_low
  end
  local rest = low % 2 ^ 48
  return high + (low - rest) / 2 ^ 48, rest
end

-- Writes the openings of the minute, the hour and the day of a move, where they are
-- others than those of the move before, at `last`. They lie in pages of 60 units, one
-- behind the other; with a new page those that are too old go.
local function open(to, last, ...)
  local opening = pack('>I6I6I6I7I2I6I7', last, ...)
  for _, unit in ipairs({ { 'm', 60000, 48 }, { 'h', 3600000, 24 }, { 'd', 86400000, 13 } }) do
    local letter, length, kept = unpack(unit)
    local start = to - to % length
    if last >= start then break end
    local newest = math.floor(start / length / 60)
    local page = redis.call('HGET', KEYS[4], letter .. newest)
    if not page then
      page = ''
      for _, name in ipairs(redis.call('HKEYS', KEYS[4])) do
        if string.sub(name, 1, 1) == letter and tonumber(string.sub(name, 2)) < newest - kept then
          redis.call('HDEL', KEYS[4], name)
        end
      end
    end
    redis.call('HSET', KEYS[4], letter .. newest, page .. pack('>I6', start) .. opening)
  end
end
