-- The meters of a space and its openings of one unit, as of one moment.
--
-- KEYS: 1 the state, 2 the openings (HASH of pages). ARGV: 1 the unit's mark, 2
--   the length of a page in ms, 3 how many pages are wanted beside the newest.
-- Answers the state, the time, and the openings, oldest first.
local state = redis.call('GET', KEYS[1]) or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local newest = math.floor(now / ARGV[2])
local names = {}
for page = newest - ARGV[3], newest do names[#names + 1] = ARGV[1] .. page end
local pages = redis.call('HMGET', KEYS[2], unpack(names))
for i = 1, #pages do pages[i] = pages[i] or '' end
return { state, now, table.concat(pages) }
