-- minutes: what happened in each of the last minutes, oldest first, the current one included
-- $1 int minutes
-- Returns: minute, entered, completed, failed (attempts that will be repeated), dead
SELECT m.minute,
       coalesce(sum(c.n) FILTER (WHERE c.before = ''), 0)::bigint AS entered,
       coalesce(sum(c.n) FILTER (WHERE c.after = {completed}), 0)::bigint AS completed,
       coalesce(sum(c.n) FILTER (WHERE c.after = {failed}), 0)::bigint AS failed,
       coalesce(sum(c.n) FILTER (WHERE c.after = {dead_letter}), 0)::bigint AS dead
FROM generate_series(date_trunc('minute', now()) - make_interval(mins => $1::int - 1), now(), interval '1 minute') AS m (minute)
  LEFT JOIN counter_minutes c ON c.minute = m.minute
GROUP BY m.minute ORDER BY m.minute
