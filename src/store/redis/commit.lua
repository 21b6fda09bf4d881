-- Applies one batch to one space, wholly or not at all. The line with `#!lua`
-- and its flags, state.lua and keep.lua are put before this text by script.rs.
--
-- KEYS: 1 the state, 2 the bucket ends (ZSET), 3 the bucket sums (HASH), 4 the
--   openings (HASH), 5 to 4 + n the records of the n writes, then index ZSETs (that of
--   a passing table with the ZSET of its records' ends behind it), the stream of changes
--   and the log where they are needed.
-- ARGV: 1 the batch, then for each write its options and its value. Layouts are
--   those of wire.rs.
--
-- Counting: a metered record with an expiry belongs to the bucket that its
-- expiry is rounded up to, and Redis drops it at the bucket's end. Buckets whose
-- end has passed are reaped first, so a bucket is uncounted as one, and after
-- it the watermark says so: a record counts if it never ends or if its bucket
-- ends after the watermark. The meters advance to each bucket's own end, so they
-- are exact whenever that is found out, and nothing is applied before all is
-- reaped that is due. A record that lingers is kept beyond its expiry: then its
-- bucket is that of its leaving. All decisions come before the first write; every
-- loop is bounded by the batch or by 128 buckets.
--
-- Times are milliseconds. TIME runs on during a script in Redis 7.0, while
-- expiry stands still; that is why the watermark decides, and not the clock.

local HEAD = '>BI7I6I6'

local mode, viewed, epoch, generation, max_entries, max_bytes, step, changes,
  more_operations, more_high, more_low, log = unpack_bytes('>BBI6I6I7I7BI2I6I2I6I2', ARGV[1])
local n = (#ARGV - 1) / 2
-- Epochs of an era, as ERA_EPOCHS has it.
local ERA = 1048576
local era, fence = step == 4, step == 5
if era or fence then step = 1 end

if removed == 1 then return 'G' end
if removed == 2 and step ~= 3 and mode ~= 2 then return 'W' end
if (viewed == 1 and epoch ~= ep)
  or (viewed == 3 and (epoch > ep or ep - ep % ERA > epoch))
  or (viewed > 0 and generation ~= gen) then
  return 'S' .. pack('>I6I6', ep, gen)
end

-- What is there now. A wrong type ends the script here, before any write.
local heads, sizes = {}, {}
for i = 1, n do
  local key = KEYS[i + 4]
  local head = call('GETRANGE', key, 0, 19)
  if head ~= '' then
    if #head ~= 20 or byte(head) ~= 1 then
      return redis.error_reply('CORRUPT the head of a record')
    end
    sizes[key] = call('STRLEN', key)
  end
  heads[key] = head
end

local now
local function clock()
  local time = call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

-- Reap what is over, for good, whatever becomes of the batch.
local unreaped = false
if due > 0 then
  clock()
  if due < now then
    local ends = call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, 128)
    if #ends > 0 then
      local sums = call('HMGET', KEYS[3], unpack(ends))
      for i = 1, #ends do
        if sums[i] then
          local e, b = unpack_bytes('>I6I7', sums[i])
          local stop = tonumber(ends[i])
          if stop > at then
            if at < stop - stop % 60000 then
              open(stop, at, integral_high, integral_low, operations, carried_high, carried_low,
                at > 0 and bytes or 0)
            end
            if at > 0 then
              integral_high, integral_low =
                integrate(integral_high, integral_low, bytes, stop - at)
            end
            at = stop
          end
          -- A server that evicts may have lost the state and kept the buckets.
          entries = entries > e and entries - e or 0
          bytes = bytes > b and bytes - b or 0
          expired = expired + e
        end
      end
      call('ZREM', KEYS[2], unpack(ends))
      call('HDEL', KEYS[3], unpack(ends))
      local last = tonumber(ends[#ends])
      if last > mark then mark = last end
    end
    local first = call('ZRANGE', KEYS[2], 0, 0)
    due = first[1] and tonumber(first[1]) or 0
    unreaped = due > 0 and due < now
    call('SET', KEYS[1], pack(STATE, format, removed, ep, gen, seq, bytes, entries, orphaned, mark, due,
      at, integral_high, integral_low, operations, carried_high, carried_low, expired) .. pin)
    -- 'M': usage may turn out lower, and the meters would pass over buckets' ends;
    -- the caller reaps on and comes again.
    if unreaped and mode ~= 2 then return 'M' end
  end
end

local before_entries, before_bytes = entries, bytes
local more_entries, more_bytes
local function count(stop, e, b)
  entries = entries + e
  bytes = bytes + b
  if stop > 0 then
    if not more_entries then more_entries, more_bytes = {}, {} end
    more_entries[stop] = (more_entries[stop] or 0) + e
    more_bytes[stop] = (more_bytes[stop] or 0) + b
  end
end

-- The limit that is passed now, although it was not before.
local function passed(old_entries, old_bytes)
  if entries > old_entries and entries > max_entries then
    return 'E' .. pack('>I7', old_entries)
  end
  if bytes > old_bytes then
    if bytes > max_bytes then return 'B' .. pack('>I7', old_bytes) end
    if bytes + orphaned > max_bytes * 1.5 then return 'F' .. pack('>I7', old_bytes) end
  end
end

-- Decide. `new_heads[i]` is the record's new head, '' to remove it, or nil.
local outcomes, new_heads, ends, values = {}, {}, {}, {}
-- Which writes change a record that a pin needs.
local needed
local changed = step > 0
for i = 1, n do
  local options = ARGV[2 * i]
  -- `keeps`: 1 where a floor hides what was, 2 where what is put lingers, 3 both.
  local action, check, metered, keeps = byte(options, 1, 4)
  local ttl, path = unpack_bytes('>I6I4', options, 8)
  local key = KEYS[i + 4]
  local head = heads[key]
  local found, expire, stop, size = 0, 0, 0, 0
  local counted, over = false, false
  if head ~= '' then
    found, expire, stop = unpack_bytes('>I7I6I6', head, 2)
    if expire > 0 then
      if not now then clock() end
      if expire <= now then found, over = 0, true end
    end
    if found > 0 and found <= pinned then
      needed = needed or {}
      needed[i] = true
    end
    if keeps % 2 == 1 and found <= unpack_bytes('>I7', options, 25) then found = 0 end
    if metered == 1 then
      size = sizes[key] + path
      counted = stop == 0 or stop > mark
    end
  end
  -- 4 renews as the value says, 5 takes; both show the value.
  local shown
  if action > 3 and found > 0 then
    shown = call('GETRANGE', key, 20, -1)
    if action == 4 then
      if #shown < 12 then return redis.error_reply('CORRUPT a record that is to be renewed') end
      local idle, last = unpack_bytes('>I6I6', shown)
      if not now then clock() end
      ttl = math.min(idle, last - now)
      if ttl < 1 then found = 0 end
    end
  end

  if (check == 1 and found > 0) or (check == 2 and found == 0)
    or (check == 3 and (found == 0 or found ~= unpack_bytes('>I7', options, 18))) then
    if mode == 0 then
      return 'C' .. pack('>I4I7', i - 1, found)
    end
    outcomes[i] = pack('>BBI7I6', 1, 0, found, 0)
  elseif action == 1 or (action % 2 == 0 and action > 0 and found > 0) then
    local old_entries, old_bytes = entries, bytes
    if counted then count(stop, -1, -size) end
    local new_version, length = found, 0
    if action == 1 then
      seq = seq + 1
      new_version = seq
      length = #ARGV[2 * i + 1] + 20
    else
      length = sizes[key]
    end
    expire, stop = 0, 0
    local leaves = 0
    if ttl > 0 then
      if not now then clock() end
      expire = now + ttl
      if expire > 1e14 then expire = 1e14 end
      leaves = expire
      if keeps > 1 then
        ttl = ttl + unpack_bytes('>I6', options, 32)
        leaves = now + ttl
        if leaves > 1e14 then leaves = 1e14 end
      end
      if metered == 1 then
        local width = ttl < 60000 and 50 or (ttl < 3600000 and 1000 or 15000)
        stop = leaves + (width - leaves % width) % width
        if stop <= mark then stop = mark + width - mark % width end
        leaves = stop
      end
    end
    if metered == 1 then count(stop, 1, length + path) end
    local refused = mode == 1 and action == 1 and passed(old_entries, old_bytes)
    if refused then
      -- Take it back: this write alone is refused, and leaves no trace.
      if metered == 1 then count(stop, -1, -length - path) end
      if counted then
        local old_stop = unpack_bytes('>I6', head, 15)
        count(old_stop, 1, size)
      end
      seq = seq - 1
      outcomes[i] = pack('>BBI7I6', 2, byte(refused), select(2, unpack_bytes('>BI7', refused)), 0)
    else
      changed = true
      local new_head = pack(HEAD, 1, new_version, expire, stop)
      heads[key], sizes[key] = new_head, length
      new_heads[i] = new_head
      if over and counted then expired = expired + 1 end
      -- A text is cheaper than a number, which Redis writes with 17 digits in mind.
      if leaves > 0 then ends[i] = string.format('%d', leaves) end
      outcomes[i] = pack('>BBI7I6', action == 4 and 3 or 0, found > 0 and 1 or 0, new_version,
        expire)
    end
  elseif action == 3 or action == 5 then
    if found > 0 then changed = true end
    if head ~= '' then
      if counted then
        count(stop, -1, -size)
        if over then expired = expired + 1 end
      end
      heads[key], new_heads[i] = '', ''
    end
    if action == 5 and found > 0 then
      outcomes[i] = pack('>BBI7I6', 3, 1, found, expire)
    else
      outcomes[i] = pack('>BBI7I6', action == 5 and 3 or 0, found > 0 and 1 or 0, 0, 0)
    end
  else
    outcomes[i] = pack('>BBI7I6', action == 4 and 3 or 0, found > 0 and 1 or 0, found,
      found > 0 and expire or 0)
  end
  if shown and found > 0 then values[#values + 1] = pack('>I4', #shown) .. shown end
end

if mode == 0 then
  local refused = passed(before_entries, before_bytes)
  if refused then return refused end
end

-- Write. The meters come first: the integral takes what was held before.
local dirty = more_operations > 0 or more_high > 0 or more_low > 0
if dirty or bytes ~= before_bytes or step > 1 then
  dirty = true
  if not now then clock() end
  if now > at then
    if at < now - now % 60000 then
      open(now, at, integral_high, integral_low, operations, carried_high, carried_low,
        at > 0 and before_bytes or 0)
    end
    if at > 0 then
      integral_high, integral_low =
        integrate(integral_high, integral_low, before_bytes, now - at)
    end
    at = now
  end
  operations = operations + more_operations
  carried_high, carried_low = carried_high + more_high, carried_low + more_low
  if carried_low >= 2 ^ 48 then
    carried_high, carried_low = carried_high + 1, carried_low - 2 ^ 48
  end
end
local told, passing
for i = 1, n do
  local new_head = new_heads[i]
  if new_head then
    dirty = true
    local key = KEYS[i + 4]
    local options = ARGV[2 * i]
    local action = byte(options)
    local told_mark, index_high, index_low = byte(options, 5, 7)
    local index = index_high * 256 + index_low
    local path, leaving
    if index > 32767 then
      index = index - 32768
      passing, leaving = index, KEYS[index + 1]
    end
    if index > 0 or told_mark > 0 then
      path = string.sub(key, -unpack_bytes('>I4', options, 14))
    end
    if new_head == '' then
      if not (needed and needed[i] and displace(key)) then call('DEL', key) end
      if index > 0 then call('ZREM', KEYS[index], path) end
      if leaving then call('ZREM', leaving, path) end
    elseif action == 1 then
      if needed and needed[i] then displace(key) end
      if ends[i] then
        call('SET', key, new_head .. ARGV[2 * i + 1], 'PXAT', ends[i])
      else
        call('SET', key, new_head .. ARGV[2 * i + 1])
      end
      if index > 0 then call('ZADD', KEYS[index], 0, path) end
      if leaving then call('ZADD', leaving, ends[i] or 'inf', path) end
    elseif new_head == heads[key] then
      -- Only the last touch of a record: Redis 7.0 removes it at once where the end is
      -- past by the time this is run, and another touch would bring back a head alone.
      if needed and needed[i] then keep_head(key) end
      call('SETRANGE', key, 0, new_head)
      if ends[i] then call('PEXPIREAT', key, ends[i]) else call('PERSIST', key) end
      if leaving then call('ZADD', leaving, ends[i] or 'inf', path) end
    end
    if told_mark > 0 then
      told = told or {}
      told[#told + 1] = 'k'
      told[#told + 1] = string.char(told_mark) .. path
    end
  end
end
-- The index of a passing table follows what Redis drops in silence: each commit takes
-- more out than it can have put in, and with its last record the index ends itself.
if passing then
  if not now then clock() end
  local index, leaving = KEYS[passing], KEYS[passing + 1]
  local left = call('ZRANGEBYSCORE', leaving, '-inf', '(' .. now, 'LIMIT', 0, 128)
  if #left > 0 then
    call('ZREM', index, unpack(left))
    call('ZREM', leaving, unpack(left))
  end
  local last = call('ZRANGE', leaving, -1, -1, 'WITHSCORES')[2]
  if last == 'inf' then
    call('PERSIST', index)
    call('PERSIST', leaving)
  elseif last then
    call('PEXPIREAT', index, last)
    call('PEXPIREAT', leaving, last)
  end
end
if told and changes > 0 then
  call('XADD', KEYS[changes], 'MAXLEN', '~', 10000, '*', unpack(told))
end

if log > 0 and changed then
  if step == 3 then
    call('UNLINK', KEYS[log])
  else
    local note = string.sub(ARGV[1], 48)
    local added = redis.pcall('XADD', KEYS[log], 'MAXLEN', '~', 100000, '*', 'n', note)
    if type(added) == 'table' then
      -- What stood in its place was none; whoever read it learns that it is another.
      call('UNLINK', KEYS[log])
      call('XADD', KEYS[log], '*', 'n', note)
    end
    call('PEXPIRE', KEYS[log], 3600000)
    local kept = call('XLEN', KEYS[log])
    if kept % 32 == 0 then
      -- A server may not let us ask; then only their number bounds the notes.
      local held = redis.pcall('MEMORY', 'USAGE', KEYS[log])
      if type(held) == 'number' and held > 8388608 then
        call('XTRIM', KEYS[log], 'MAXLEN', '~', kept / 2)
      end
    end
  end
end

if more_entries then
  for stop, e in pairs(more_entries) do
    local b, name = more_bytes[stop], string.format('%d', stop)
    if e ~= 0 or b ~= 0 then
      local sums = call('HGET', KEYS[3], name)
      if sums then
        local old_e, old_b = unpack_bytes('>I6I7', sums)
        e, b = e + old_e, b + old_b
      else
        call('ZADD', KEYS[2], name, name)
        if due == 0 or stop < due then due = stop end
      end
      if e > 0 then
        call('HSET', KEYS[3], name, pack('>I6I7', e, b))
      else
        call('HDEL', KEYS[3], name)
        call('ZREM', KEYS[2], name)
      end
    end
  end
end

if entries < 0 then entries = 0 end
if bytes < 0 then bytes = 0 end
local before = ''
if step > 1 then
  before = pack('>I6I7I7', entries, bytes, orphaned)
  orphaned = orphaned + bytes
  entries, bytes, due = 0, 0, 0
  call('UNLINK', KEYS[2], KEYS[3])
  gen = gen + 1
end
if fence then
  removed = 2
  if format < 5 then format = 4 end
elseif step == 3 then
  removed = 1
end
if step > 0 and not fence then ep = era and ep - ep % ERA + ERA or ep + 1 end
if ep == 0 and mode ~= 2 then ep = 1; dirty = true end

if step == 3 then
  at, integral_high, integral_low, operations, carried_high, carried_low = 0, 0, 0, 0, 0, 0
  call('UNLINK', KEYS[4])
  format, pin = 3, ''
end

local saved = pack(STATE, format, removed, ep, gen, seq, bytes, entries, orphaned, mark,
  due, at, integral_high, integral_low, operations, carried_high, carried_low, expired)
if step == 3 then
  call('SET', KEYS[1], saved, 'PX', 3600000)
elseif dirty or step > 0 then
  call('SET', KEYS[1], saved .. pin)
end
return (unreaped and 'k' or 'K') .. saved .. before .. table.concat(outcomes)
  .. table.concat(values)
