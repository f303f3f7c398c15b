-- drop: forget ids that are no longer open; only a hint, a leftover costs one refused claim
-- KEYS: 1..10 the lanes of priority 0..9
-- ARGV: for each job: priority, id (16 bytes)
-- Returns: how many were there
local n = 0
for i = 1, #ARGV, 2 do n = n + redis.call('ZREM', KEYS[ARGV[i] + 1], ARGV[i + 1]) end
return n
