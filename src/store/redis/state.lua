-- The state of a space, its counters and meters, for the scripts that move them:
-- script.rs puts this before them. KEYS[1] is the state, KEYS[4] the openings.
--
-- The meters stand as of the last move, at `at`. The bytes carried, and the integral
-- of bytes held over time, outgrow Lua's exact numbers, so each is kept in two:
-- wholes of 2^48 and the rest.
-- Whoever changes `bytes` or the meters advances them first, with what was held.

local call = redis.call
local pack, unpack_bytes, byte = struct.pack, struct.unpack, string.byte
local STATE = '>BBI6I6I7I7I6I7I6I6I6I6I6I7I2I6'
local FORMER = '>BBI6I6I7I7I6I7I6I6'

local state = call('GET', KEYS[1])
local removed, ep, gen, seq, bytes, entries, orphaned, mark, due = 0, 0, 0, 0, 0, 0, 0, 0, 0
local at, integral_high, integral_low, operations, carried_high, carried_low = 0, 0, 0, 0, 0, 0
if state then
  local format = #state == 86 and byte(state)
  if format == 2 then
    format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
      at, integral_high, integral_low, operations, carried_high, carried_low = unpack_bytes(STATE, state)
  elseif #state == 53 and byte(state) == 1 then
    format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due = unpack_bytes(FORMER, state)
  else
    return redis.error_reply('CORRUPT the state of a space')
  end
end

local function packed(gone)
  return pack(STATE, 2, gone, ep, gen, seq, bytes, entries, orphaned, mark, due,
    at, integral_high, integral_low, operations, carried_high, carried_low)
end

local now
local function clock()
  local time = call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

-- The units that openings are kept of: mark, length, pages kept beside the newest.
-- A page has 60 units.
local UNITS = { { 'm', 60000, 48 }, { 'h', 3600000, 24 }, { 'd', 86400000, 13 } }
local opened

-- Adds `held` bytes over the time until `to`. A space of the former format has
-- no meters until its first move.
local function advance(to, held)
  if to <= at then return end
  if at < to - to % 60000 then
    opened = opened or {}
    local opening = pack('>I6I6I6I7I2I6I7', at, integral_high, integral_low, operations,
      carried_high, carried_low, at > 0 and held or 0)
    for i = 1, 3 do
      local length = UNITS[i][2]
      local start = to - to % length
      if at >= start then break end
      local page = UNITS[i][1] .. math.floor(start / length / 60)
      opened[page] = (opened[page] or '') .. pack('>I6', start) .. opening
    end
  end
  if at > 0 and held > 0 then
    local span = to - at
    if held * span < 2 ^ 52 then
      integral_low = integral_low + held * span
    else
      local held_low, span_low = held % 2 ^ 24, span % 2 ^ 24
      local held_high, span_high = (held - held_low) / 2 ^ 24, (span - span_low) / 2 ^ 24
      local middle = held_high * span_low + held_low * span_high
      local middle_low = middle % 2 ^ 24
      integral_high = integral_high + held_high * span_high + (middle - middle_low) / 2 ^ 24
      integral_low = integral_low + middle_low * 2 ^ 24 + held_low * span_low
    end
    if integral_low >= 2 ^ 48 then
      local rest = integral_low % 2 ^ 48
      integral_high = integral_high + (integral_low - rest) / 2 ^ 48
      integral_low = rest
    end
  end
  at = to
end

-- Writes the openings that `advance` found, and lets go of pages that are too old.
local function keep_openings()
  for page, text in pairs(opened) do
    local before = call('HGET', KEYS[4], page)
    if not before then
      before = ''
      local unit, number = string.sub(page, 1, 1), tonumber(string.sub(page, 2))
      local fields = call('HKEYS', KEYS[4])
      for i = 1, #UNITS do
        if UNITS[i][1] == unit then
          for _, field in ipairs(fields) do
            if string.sub(field, 1, 1) == unit
              and tonumber(string.sub(field, 2)) < number - UNITS[i][3] then
              call('HDEL', KEYS[4], field)
            end
          end
        end
      end
    end
    call('HSET', KEYS[4], page, before .. text)
  end
  opened = nil
end
