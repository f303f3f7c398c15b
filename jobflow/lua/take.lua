-- take: let some requests of one client through, as far as its sliding window has room
-- KEYS: 1 the client's window: a sorted set of the requests let through, scored by when
-- ARGV: wanted, limit, window in µs, nonce
-- Returns: {granted, remaining, µs until the oldest leaves the window}
-- Refused requests are not stored, so memory is bounded by the limit and knocking does not prolong the wait. One client's
-- window lives on one clock, Redis' own; all its members are unique.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local wanted, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
local used = redis.call('ZCARD', KEYS[1])
local granted = math.max(math.min(wanted, limit - used), 0)
local score = string.format('%.0f', now)
for i = 1, granted do redis.call('ZADD', KEYS[1], score, score .. ':' .. ARGV[4] .. ':' .. i) end
if granted > 0 then redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000)) end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {granted, limit - used - granted, oldest and math.max(oldest + window - now, 0) or 0}
