-- pop: take due ids of one queue, low priorities first but none starved
-- KEYS: 1..10 the lanes of priority 0..9, 11 the lanes' states
-- ARGV: now in µs (Postgres' clock), want, low (a lane that holds less and is not open asks for a fill)
-- Returns: {ids in one string of 16 bytes each, lanes to fill as priority and state, score of the next job that will fall due or ''}
-- Between priorities: start-time fair queueing (Goyal, Vin, Cheng 1996). Priority p has weight (10 - p)²; the lane with
-- the smallest virtual finish time is served next. A lane that becomes active starts at the queue's virtual time.
local now, want, low, st = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), KEYS[11]
local ids, fills, due, finish, active = {}, {}, {}, {}, 0
local clock = tonumber(redis.call('HGET', st, 'v') or '0')
for p = 0, 9 do
  local n = redis.call('ZCOUNT', KEYS[p + 1], '-inf', now)
  if n > 0 then
    due[p], active = n, active + 1
    finish[p] = tonumber(redis.call('HGET', st, 'f' .. p) or '')
    if not finish[p] then
      -- Kept at once: a lane that is not served now would else start anew at the next pop, and never have its turn.
      finish[p] = clock + 1 / (10 - p) ^ 2
      redis.call('HSET', st, 'f' .. p, string.format('%.17g', finish[p]))
    end
  else
    redis.call('HDEL', st, 'f' .. p)
  end
end
local chunk = active == 1 and want or math.ceil(want / 8)
while want > 0 and active > 0 do
  local best
  for p = 0, 9 do
    if due[p] and (not best or finish[p] < finish[best]) then best = p end
  end
  local popped = redis.call('ZPOPMIN', KEYS[best + 1], math.min(due[best], chunk, want))
  local n = #popped / 2
  for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
  local stride = 1 / (10 - best) ^ 2
  clock = finish[best] - stride
  finish[best] = finish[best] + n * stride
  want = want - n
  due[best] = due[best] - n
  redis.call('HSET', st, 'v', string.format('%.17g', clock), 'f' .. best, string.format('%.17g', finish[best]))
  if due[best] == 0 then due[best], active = nil, active - 1 end
end
local next = ''
for p = 0, 9 do
  local state = redis.call('HGET', st, p)
  if state ~= '+' and redis.call('ZCARD', KEYS[p + 1]) < low and tonumber(now) > tonumber(redis.call('HGET', st, 'l' .. p) or '0') then
    -- One reader at a time: the lease of a fill lapses after a second.
    redis.call('HSET', st, 'l' .. p, string.format('%.0f', now + 1000000))
    fills[#fills + 1] = p
    fills[#fills + 1] = state or ''
  end
  if want > 0 then
    local first = redis.call('ZRANGE', KEYS[p + 1], 0, 0, 'WITHSCORES')[2]
    if first and (next == '' or tonumber(first) < tonumber(next)) then next = string.format('%.0f', first) end
  end
end
return {table.concat(ids), fills, next}
