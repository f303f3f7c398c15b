-- retry_jobs: a person makes jobs runnable again; from a final state they start over, the history stays
-- $1 uuid[] id
-- Returns: id, queue, priority, run_at, before
WITH wanted AS MATERIALIZED (
  SELECT j.id, j.queue, j.status FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
  WHERE j.status || '' IN ({retryable}) ORDER BY w.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j
  SET status = {pending}, run_at = now(), updated_at = now(), finished_at = NULL,
      cancel_reason = NULL, cancel_requested_at = NULL,
      attempt = CASE WHEN w.status IN ({final}) THEN 0 ELSE j.attempt END,
      rescues = CASE WHEN w.status IN ({final}) THEN 0 ELSE j.rescues END,
      expires_at = CASE WHEN j.expires_at > now() THEN j.expires_at END
  FROM wanted w WHERE j.id = ANY (ARRAY[w.id])
  RETURNING j.id, j.queue, j.priority, j.run_at, w.status AS before
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, status, {pending}, count(*) FROM wanted GROUP BY queue, status
)
SELECT id, queue, priority, run_at, before FROM moved
