-- Keeps what a pinned space held, for the scripts that change records: state.lua
-- stands before this, pins.rs tells the layout.
--
-- A record at or below the version of the pin is one that was there. Before it is
-- replaced or removed it moves to a key of the pin's, whole and without being
-- copied; before it is touched its head is copied, once. A list tells where what has
-- gone, so that it is found after the walk over the keys has ended. A pin must never
-- be the reason that a commit fails: what goes wrong here ends the pin.

local pinned = 0
local displace, displace_past, keep_head
if format == 5 then
  local id, version, generation, stop, life, most, held, touched =
    unpack_bytes('>c8I7I6I6I6I7I7B', pin)
  local time = call('TIME')
  if time[1] * 1000 + math.floor(time[2] / 1000) > stop then
    format, pin = removed == 2 and 4 or 3, ''
  else
    pinned = version
  end
  local beginning = #KEYS[1]
  local list = string.sub(KEYS[1], 1, -2) .. 'y:' .. id

  local function lose()
    format, pin, pinned = removed == 2 and 4 or 3, '', 0
    return false
  end

  -- Notes that something was kept; false where it was too much.
  local function keep(kind, name, size)
    held = held + size + 2 * #name + 128
    if held > most then return lose() end
    local length = redis.pcall('RPUSH', list, kind .. name)
    if type(length) ~= 'number' then return lose() end
    if length == 1 then call('PEXPIREAT', list, stop + life) end
    pin = pack('>c8I7I6I6I6I7I7B', id, version, generation, stop, life, most, held, touched)
    return length
  end

  -- Moves a record out of the way; false where it is still there.
  displace = function(key)
    if pinned == 0 then return false end
    local length = keep('c', string.sub(key, beginning), call('STRLEN', key))
    if not length then return false end
    local copy = list .. ':' .. string.format('%d', length - 1)
    if redis.pcall('RENAME', key, copy).err then return lose() end
    call('PEXPIREAT', copy, stop + life)
    return true
  end

  -- The same for a record of a past generation, where the pin needs it.
  displace_past = function(key)
    local records = 'k:' .. string.format('%d', generation) .. ':'
    if string.sub(key, beginning, beginning + #records - 1) ~= records then return false end
    local head = call('GETRANGE', key, 0, 7)
    if #head < 8 or unpack_bytes('>I7', head, 2) > version then return false end
    return displace(key)
  end

  -- Copies the head of a record, if it is the first time.
  keep_head = function(key)
    if pinned == 0 then return end
    local name = string.sub(key, beginning)
    local head = call('GETRANGE', key, 0, 19)
    local former = list .. ':t:' .. name
    local set = redis.pcall('SET', former, head, 'NX', 'PXAT', stop + life)
    if not set then return end
    if set.err then return lose() end
    touched = 1
    if not keep('t', name, 20) then call('DEL', former) end
  end
end

