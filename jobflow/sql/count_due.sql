-- count_due: jobs that fell due and keep their status until they are claimed
-- Returns: queue, status, n
-- Queue by queue, so that the index is entered where each begins: it may hold a million jobs for tomorrow. And a million may
-- have fallen due: then those that have not are counted, and taken from what there is in all. The order makes jobs_later
-- the cheapest index even while the table looks empty; the plan is kept when it has filled.
WITH counted AS (
  SELECT queue, status, sum(n)::bigint AS n
  FROM (SELECT queue, after AS status, n FROM counters UNION ALL SELECT queue, before, -n FROM counters
        UNION ALL SELECT queue, after, n FROM counter_deltas UNION ALL SELECT queue, before, -n FROM counter_deltas) moves
  WHERE status IN ({later}) GROUP BY queue, status
)
SELECT q.name AS queue, s.status, d.n
FROM queues q CROSS JOIN unnest(ARRAY[{later}]) AS s (status) CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM jobs j WHERE j.status IN ({later}) AND j.status = s.status AND j.queue = q.name AND j.run_at <= now()
    ORDER BY j.run_at LIMIT 10001) first) few CROSS JOIN LATERAL (
  SELECT CASE WHEN few.n <= 10000 THEN few.n ELSE
    (SELECT c.n FROM counted c WHERE c.queue = q.name AND c.status = s.status) - (SELECT count(*) FROM (
      SELECT FROM jobs j WHERE j.status IN ({later}) AND j.status = s.status AND j.queue = q.name AND j.run_at > now()
      ORDER BY j.run_at) rest) END AS n) d
WHERE d.n > 0
