-- Removes records that can no longer be reached, and uncounts each in the same
-- step, so that a repetition uncounts nothing twice. state.lua and keep.lua stand
-- before it.
--
-- KEYS: 1 the state, 2 the bucket ends (ZSET), 3 the bucket sums (HASH), 4 the
--   openings (HASH), then the candidates, at most 128.
-- ARGV: 1 what is asked, 2 whether each candidate is metered and the bytes of
--   its path. Layouts are those of wire.rs.
-- Answers the records removed and their bytes; or -1 where the question has
-- been overtaken and nothing is left to do, -2 where buckets are to be reaped first.

local orphans, last, generation, version = unpack_bytes('>BBI6I7', ARGV[1])

local gone = not state or removed == 1
if orphans == 1 then
  if not gone and generation > gen then return { -1, 0 } end
elseif gone or generation ~= gen then
  return { -1, 0 }
end

local now
if orphans == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  if due > 0 and due < now then return { -2, 0 } end
end

local held = bytes
local count, sum = 0, 0
local place = 1
for i = 5, #KEYS do
  local metered, path
  metered, path, place = unpack_bytes('>BI4', ARGV[2], place)
  local key = KEYS[i]
  if orphans == 1 then
    local length = metered == 1 and redis.pcall('STRLEN', key) or 0
    if type(length) == 'table' then length = 0 end
    if not (length > 0 and pinned > 0 and displace_past(key)) then call('UNLINK', key) end
    if length > 0 then
      count = count + 1
      sum = sum + length + path
    end
  else
    local head = redis.pcall('GETRANGE', key, 0, 19)
    if type(head) == 'string' and #head == 20 and byte(head) == 1 then
      local _, found, expire, stop = unpack_bytes('>BI7I6I6', head)
      if found <= version then
        local size = call('STRLEN', key) + path
        local needed = found <= pinned and (expire == 0 or expire > now)
        if not (needed and displace(key)) then call('UNLINK', key) end
        count = count + 1
        sum = sum + size
        if stop == 0 or stop > mark then
          entries = entries - 1
          bytes = bytes - size
          local sums = stop > 0 and call('HGET', KEYS[3], stop)
          if sums then
            local e, b = unpack_bytes('>I6I7', sums)
            if e > 1 then
              call('HSET', KEYS[3], stop, pack('>I6I7', e - 1, b - size))
            else
              call('HDEL', KEYS[3], stop)
              call('ZREM', KEYS[2], stop)
            end
          end
        end
      end
    end
  end
end

if state then
  if orphans == 1 then
    orphaned = math.max(orphaned - sum, 0)
    -- Nothing was flushed meanwhile, so whatever else was orphaned has expired.
    if last == 1 and (gone or gen == generation) then orphaned = 0 end
  end
  if entries < 0 then entries = 0 end
  if bytes < 0 then bytes = 0 end
  if bytes ~= held and now > at then
    if at < now - now % 60000 then
      open(now, at, integral_high, integral_low, operations, carried_high, carried_low,
        at > 0 and held or 0)
    end
    if at > 0 then
      integral_high, integral_low = integrate(integral_high, integral_low, held, now - at)
    end
    at = now
  end
  local saved = pack(STATE, format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
    at, integral_high, integral_low, operations, carried_high, carried_low, expired)
  if gone then
    -- The mark of the removed space stays for an hour after the last visit.
    call('SET', KEYS[1], saved, 'PX', 3600000)
  else
    call('SET', KEYS[1], saved .. pin)
  end
end
return { count, sum }
