-- count_due: jobs that fell due and keep their status until they are claimed
-- Returns: queue, status, n
-- Queue by queue, so that the index is entered where each begins: it may hold a million jobs for tomorrow. The order
-- makes jobs_later the cheapest index even while the table looks empty; the plan is kept when it has filled.
SELECT q.name AS queue, s.status, d.n
FROM queues q CROSS JOIN unnest(ARRAY[{later}]) AS s (status) CROSS JOIN LATERAL (
  SELECT count(*) AS n FROM (
    SELECT FROM jobs j
    WHERE j.status IN ({later}) AND j.status = s.status AND j.queue = q.name AND j.run_at <= now() ORDER BY j.run_at) due) d
WHERE d.n > 0
