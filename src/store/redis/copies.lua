-- A piece of the list of what is kept for a pin. point.lua stands before it.
--
-- KEYS: 1 the state. ARGV: 1 the id of the pin, 2 and 3 the first and the last
--   place.
-- Answers the piece, or L where the pin is lost.

if not lasts then return 'L' end
return call('LRANGE', list, ARGV[2], ARGV[3])
