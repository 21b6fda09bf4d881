-- Adds amounts to rows of counters, all or none.
--
-- KEYS: 1 the state, then the stamp of the source and the name of what is told
--   of, where there are such, then the records that must be absent, then the rows.
-- ARGV: 1 what is there and how much, 2 the stamp's sequence, then for each row
--   how long it is kept and how many counts it has, then for each of those its
--   name and its amount and limit. Layouts are those of tally.rs.
--
-- A counter may be beyond 2^53, where Lua's numbers are no longer exact; so each
-- is worked on as two halves, thousand millions and the rest. All decisions come
-- before the first write; every loop is bounded by the tally.

local call = redis.call
local pack, unpack_bytes = struct.pack, struct.unpack
local HALF = 1000000000

-- The halves of a decimal number of up to 20 digits.
local function halves(text)
  if not text then return 0, 0 end
  if #text <= 9 then return 0, tonumber(text) end
  return tonumber(string.sub(text, 1, -10)), tonumber(string.sub(text, -9))
end

local function decimal(high, low)
  if high > 0 then return string.format('%d%09d', high, low) end
  return string.format('%d', low)
end

local function above(high, low, other_high, other_low)
  return high > other_high or (high == other_high and low > other_low)
end

local viewed, generation, stamped, once, keep_once, barring, rows =
  unpack_bytes('>BI6BBI6I2I2', ARGV[1])
local state = call('GET', KEYS[1])
local removed, current = 0, 0
if state then removed, current = unpack_bytes('>BxxxxxxI6', state, 2) end
if removed == 1 then return 'G' end
-- Where entries may bar: they live in a generation.
if viewed == 1 and generation ~= current then return 'S' .. pack('>I6', current) end

local at = 1 + stamped + once
if stamped == 1 then
  local high, low = halves(ARGV[2])
  local last_high, last_low = halves(call('GET', KEYS[2]))
  if not above(high, low, last_high, last_low) then return 'D' end
end
if once == 1 and call('EXISTS', KEYS[at]) == 1 then return 'D' end

local now
for i = 1, barring do
  local head = call('GETRANGE', KEYS[at + i], 0, 19)
  if head ~= '' then
    if #head ~= 20 or string.byte(head) ~= 1 then
      return redis.error_reply('CORRUPT the head of a record')
    end
    local expire = unpack_bytes('>I6', head, 9)
    if expire > 0 and not now then
      local time = call('TIME')
      now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    if expire == 0 or expire > now then return 'B' .. pack('>I2', i - 1) end
  end
end
at = at + barring

-- Decide. A row may be named twice, and then sees what it was given before.
local fields, kept, totals = {}, {}, {}
local shown = {}
local argument = 3
for row = 1, rows do
  local key = KEYS[at + row]
  local keep, counts = unpack_bytes('>I6I2', ARGV[argument])
  kept[row] = keep
  argument = argument + 1
  local names, stored = {}, {}
  for i = 1, counts do names[i] = ARGV[argument + 2 * i - 2] end
  if counts > 0 then stored = call('HMGET', key, unpack(names)) end
  local mine = shown[key] or {}
  shown[key] = mine
  local changed = {}
  for i = 1, counts do
    local name = names[i]
    local down, high, low, limit_high, limit_low =
      unpack_bytes('>BI5I4I5I4', ARGV[argument + 2 * i - 1])
    local old_high, old_low = halves(mine[name] or stored[i])
    if not old_high or not old_low then
      return redis.error_reply('CORRUPT a counter')
    end
    local new_high, new_low
    if down == 1 then
      new_high, new_low = old_high - high, old_low - low
      if new_low < 0 then new_high, new_low = new_high - 1, new_low + HALF end
      if new_high < 0 then new_high, new_low = 0, 0 end
    else
      new_high, new_low = old_high + high, old_low + low
      if new_low >= HALF then new_high, new_low = new_high + 1, new_low - HALF end
      if (high > 0 or low > 0) and above(new_high, new_low, limit_high, limit_low) then
        return 'E' .. pack('>I2I2I5I4', row - 1, i - 1, old_high, old_low)
      end
    end
    local text = decimal(new_high, new_low)
    mine[name] = text
    changed[2 * i - 1], changed[2 * i] = name, text
    totals[#totals + 1] = pack('>I5I4', new_high, new_low)
  end
  fields[row] = changed
  argument = argument + 2 * counts
end

-- Write.
if stamped == 1 then call('SET', KEYS[2], ARGV[2], 'PX', 172800000) end
if once == 1 then call('SET', KEYS[2 + stamped], '', 'PX', keep_once) end
for row = 1, rows do
  if #fields[row] > 0 then
    local key = KEYS[at + row]
    call('HSET', key, unpack(fields[row]))
    if kept[row] > 0 then call('PEXPIRE', key, kept[row]) else call('PERSIST', key) end
  end
end
return 'A' .. table.concat(totals)
