-- count_jobs: jobs by queue and status: folded totals plus the deltas not folded yet, in one snapshot
-- Returns: queue, status, n
SELECT queue, status, sum(n)::bigint AS n
FROM (SELECT queue, after AS status, n FROM counters UNION ALL SELECT queue, before, -n FROM counters
      UNION ALL SELECT queue, after, n FROM counter_deltas UNION ALL SELECT queue, before, -n FROM counter_deltas) moves
WHERE status <> '' GROUP BY queue, status
