-- find_due: the heads of a queue's lanes, locked until the transaction ends; used while Redis is away
-- $1 text queue · $2 int rows for each lane
-- Returns: priority, id
SELECT p.priority, h.id
FROM generate_series(0, 9) AS p (priority) CROSS JOIN LATERAL (
  SELECT j.id FROM jobs j
  WHERE j.queue = $1 AND j.priority = p.priority AND j.status IN ({open}) AND j.run_at <= now()
  ORDER BY j.run_at, j.id LIMIT $2 FOR UPDATE SKIP LOCKED) h
