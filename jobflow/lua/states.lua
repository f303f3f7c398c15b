-- states: how far each lane of one queue reaches
-- KEYS: 1 the lanes' states
-- ARGV: none
-- Returns: the state of lanes 0..9, '' for a cold one
local found = redis.call('HMGET', KEYS[1], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
for p = 1, 10 do found[p] = found[p] or '' end
return found
