-- fill: bring a page of one lane from Postgres
-- KEYS: 1 the lane, 2 the lanes' states
-- ARGV: priority, cap, state the reader saw ('' for cold), '1' if the page was full (more rows may follow), then one string
--       of 24 bytes for each row in order: run_at in µs since 2000 (8 bytes, as Postgres sends it), id (16 bytes)
-- Returns: 1, or 0 when somebody else moved the lane meanwhile (or emptied Redis): start again
local p, cap, seen, full = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
if (redis.call('HGET', KEYS[2], p) or '') ~= seen then return 0 end
local function tail(score, id)
  return score .. ':' .. (string.gsub(id, '.', function(c) return string.format('%02x', string.byte(c)) end))
end
redis.call('HDEL', KEYS[2], 'l' .. p)
local rows = ARGV[5]
local function score(i) -- since 1970; what is later than the year 2255 counts as the last that a double holds exactly
  return string.format('%.0f', math.min(struct.unpack('>i8', rows, i) + 946684800000000, 9007199254740991))
end
for first = 1, #rows, 24 * 500 do -- one call for many: each costs as much as several rows
  local some = {}
  for i = first, math.min(first + 24 * 500, #rows) - 1, 24 do
    some[#some + 1] = score(i)
    some[#some + 1] = string.sub(rows, i + 8, i + 23)
  end
  redis.call('ZADD', KEYS[1], 'NX', unpack(some))
end
redis.call('HSET', KEYS[2], p, full and tail(score(#rows - 23), string.sub(rows, -16)) or '+')
local excess = redis.call('ZCARD', KEYS[1]) - cap
if excess > 0 then
  redis.call('ZPOPMAX', KEYS[1], excess)
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
  redis.call('HSET', KEYS[2], p, tail(string.format('%.0f', last[2]), last[1]))
end
return 1
