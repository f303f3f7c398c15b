-- expire_jobs: cancel jobs that were not started in time
-- $1 int rows
-- Returns: id, before
WITH late AS MATERIALIZED (
  SELECT id, queue, status FROM jobs
  WHERE expires_at < now() AND status IN ({expirable})
  ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE jobs j SET status = {cancelled}, cancel_reason = 'expired: it was not started before expires_at',
                    finished_at = now(), updated_at = now()
  FROM late l WHERE j.id = ANY (ARRAY[l.id]) RETURNING j.id
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, status, {cancelled}, count(*) FROM late GROUP BY queue, status
)
SELECT id, status AS before FROM late
