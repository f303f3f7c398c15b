-- oldest_due: how long has the oldest ready job of each queue waited?
-- Returns: queue, age in seconds
SELECT q.name AS queue, extract(epoch FROM now() - min(h.run_at))::float8 AS age
FROM queues q CROSS JOIN generate_series(0, 9) AS p (priority) CROSS JOIN LATERAL (
  SELECT j.run_at FROM jobs j
  WHERE j.queue = q.name AND j.priority = p.priority AND j.status IN ({open}) AND j.run_at <= now()
  ORDER BY j.run_at, j.id LIMIT 1) h
GROUP BY q.name
