-- Leases permits of a window.
--
-- KEYS: 1 the state, 2 the window (HASH). ARGV: 1 what is asked; layouts are those of lease.rs.
--
-- Permits count in slots, each in the one that it was used in or will be at the
-- latest; a slot counts until the span after its end. Beside the slots, by their
-- numbers, the window holds t the permits that count, f and l the first and the
-- last slot that may hold some, w the width of the slots. Slots leave in their
-- order, so a call looks at no more of them than a window can have (about 660),
-- and commonly at one or two.

local call = redis.call
local limit, span, width, want, least, share, hold, forced, settles, settled, used, unused =
  struct.unpack('>I7I5I4I7I7I7I5I7BI6I7I7', ARGV[1])
local state, window = call('GET', KEYS[1]), KEYS[2]
if state and string.byte(state, 2) == 1 then return 'G' end
-- Lua's numbers are exact up to here.
local MOST = 2 ^ 53
-- Slots that one command looks at.
local CHUNK = 100

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- The slot that a moment is in: its end is the first that is no earlier.
local function slot(moment) return math.ceil(moment / width) - 1 end

local present, leased = slot(now), slot(now + hold)
-- The last slot that anything can be leased in now, and the first that counts.
local farthest, live = slot(now + span / 10), math.floor((now - span) / width)

-- Shows the slots that hold permits in their order, until it has seen enough.
local function walk(from, to, enough)
  while from <= to do
    local numbers = {}
    for number = from, math.min(from + CHUNK - 1, to) do numbers[#numbers + 1] = number end
    local permits = call('HMGET', window, unpack(numbers))
    for i = 1, #numbers do
      if permits[i] and enough(numbers[i], tonumber(permits[i])) then return end
    end
    from = from + #numbers
  end
end

local stored = call('HMGET', window, 't', 'f', 'l', 'w')
local total, first, last = tonumber(stored[1] or 0), tonumber(stored[2]), tonumber(stored[3])
local written, same = last, tonumber(stored[4]) == width

-- What has left its slots counts no more.
if last and same and last < live then
  call('DEL', window)
  total, first, last = 0, nil, nil
elseif last and (not same or last > farthest) then
  -- The span is another one now, or the clock was set back. Permits count on from
  -- the same moment, or from where they can be at the latest.
  local all = call('HGETALL', window)
  local moved = {}
  total, first, last = 0, nil, nil
  for i = 1, #all, 2 do
    local number = tonumber(all[i])
    if number then
      number = math.min(slot((number + 1) * stored[4]), farthest)
      if number >= live then
        moved[number] = (moved[number] or 0) + all[i + 1]
        total = total + all[i + 1]
        first, last = math.min(first or number, number), math.max(last or number, number)
      end
    end
  end
  call('DEL', window)
  for number, permits in pairs(moved) do call('HSET', window, number, permits) end
  written = nil
elseif last and first < live then
  local left = {}
  walk(first, live - 1, function(number, permits)
    total = total - permits
    left[#left + 1] = number
  end)
  for i = 1, #left, CHUNK do
    call('HDEL', window, unpack(left, i, math.min(i + CHUNK - 1, #left)))
  end
  first = live
end

local function count(number, permits)
  if permits == 0 then return end
  total = total + permits
  if call('HINCRBY', window, number, permits) == 0 then call('HDEL', window, number) end
  first, last = math.min(first or number, number), math.max(last or number, number)
end

if settles == 1 then
  local number = slot(settled)
  local there = tonumber(number >= live and call('HGET', window, number) or 0)
  unused = math.min(unused, there)
  used = number > present and math.min(used, there - unused) or 0
  count(number, -unused - used)
  count(present, used)
end
count(present, math.min(forced, MOST - total))

local free = limit - total
local granted, retry = 0, 0
if free >= least then
  granted = math.min(want, free, least + math.floor(free / share))
  count(leased, granted)
end
if granted == 0 and least <= limit then
  local needed = least - free
  retry = 1
  if needed > 0 then
    walk(first, last, function(number, permits)
      needed = needed - permits
      retry = (number + 1) * width + span - now + 1
      return needed <= 0
    end)
  end
end

if last then
  call('HSET', window, 't', total, 'f', first, 'l', last, 'w', width)
  if last ~= written then call('PEXPIREAT', window, (last + 1) * width + span) end
end
return struct.pack('>I7I6I7I7', granted, (leased + 1) * width, total, retry)
