-- push: make committed jobs of one queue known, after their commit
-- KEYS: 1..10 the lanes of priority 0..9, 11 the lanes' states
-- ARGV: cap, channel, queue, '1' for fresh jobs, then one string of 33 bytes for each job: priority, run_at in µs (16 digits), id (16 bytes)
-- Returns: {how many ids were added or moved, ids known at a later time in one string of 16 bytes each (never of fresh
-- jobs), priority of each lane that is cold and has to be filled}
-- A lane is a bounded copy of the head of an index in Postgres. Its state: absent means cold (nothing may be added, a fill
-- comes first), '+' means open (all rows are here), '<µs>:<hex id>' is the tail (later rows are only in Postgres).
-- Fresh jobs were just committed: they take the place of what was known. Others were read a while ago, and what is known
-- already is newer. Scores are handed on as the strings they came as: Lua would print them with 14 digits.
local cap, st = tonumber(ARGV[1]), KEYS[11]
local added, later, cold, states, touched = 0, {}, {}, {}, {}
local fresh, jobs = ARGV[4] == '1', ARGV[5]
local how = fresh and 'CH' or 'NX'
for i = 1, #jobs, 33 do
  local p, score, id = string.sub(jobs, i, i), string.sub(jobs, i + 1, i + 16), string.sub(jobs, i + 17, i + 32)
  local lane, state = KEYS[p + 1], states[p]
  if state == nil then
    state = redis.call('HGET', st, p)
    states[p] = state
    if not state then cold[#cold + 1] = tonumber(p) end
  end
  if state == '+' or (state and tonumber(score) <= tonumber(string.match(state, '^%d+'))) then
    local new = redis.call('ZADD', lane, how, score, id)
    added = added + new
    if new == 0 and not fresh and tonumber(redis.call('ZSCORE', lane, id)) > tonumber(score) then later[#later + 1] = id end
    touched[p] = lane
  end
end
for p, lane in pairs(touched) do
  local excess = redis.call('ZCARD', lane) - cap
  if excess > 0 then
    redis.call('ZPOPMAX', lane, excess)
    local last = redis.call('ZRANGE', lane, -1, -1, 'WITHSCORES')
    redis.call('HSET', st, p, string.format('%.0f', last[2]) .. ':' .. (string.gsub(last[1], '.', function(c)
      return string.format('%02x', string.byte(c))
    end)))
  end
end
if added > 0 then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return {added, table.concat(later), unpack(cold)}
