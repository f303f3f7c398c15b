-- fill: bring a page of one lane from Postgres
-- KEYS: 1 the lane, 2 the lanes' states
-- ARGV: priority, cap, state the reader saw ('' for cold), '1' if the page was full (more rows may follow), then one string
--       of 32 bytes for each row in order: run_at in µs (16 digits), id (16 bytes)
-- Returns: 1, or 0 when somebody else moved the lane meanwhile (or emptied Redis): start again
local p, cap, seen, full = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
if (redis.call('HGET', KEYS[2], p) or '') ~= seen then return 0 end
local function tail(score, id)
  return score .. ':' .. (string.gsub(id, '.', function(c) return string.format('%02x', string.byte(c)) end))
end
redis.call('HDEL', KEYS[2], 'l' .. p)
local rows = ARGV[5]
for first = 1, #rows, 32 * 500 do -- one call for many: each costs as much as several rows
  local some = {}
  for i = first, math.min(first + 32 * 500, #rows) - 1, 32 do
    some[#some + 1] = string.sub(rows, i, i + 15)
    some[#some + 1] = string.sub(rows, i + 16, i + 31)
  end
  redis.call('ZADD', KEYS[1], 'NX', unpack(some))
end
redis.call('HSET', KEYS[2], p, full and tail(string.sub(rows, -32, -17), string.sub(rows, -16)) or '+')
local excess = redis.call('ZCARD', KEYS[1]) - cap
if excess > 0 then
  redis.call('ZPOPMAX', KEYS[1], excess)
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
  redis.call('HSET', KEYS[2], p, tail(string.format('%.0f', last[2]), last[1]))
end
return 1
