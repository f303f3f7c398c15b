-- cancel_jobs: a person or a rule stops jobs that are not running
-- $1 uuid[] id · $2 text reason
-- Returns: id, queue, priority, before
WITH wanted AS MATERIALIZED (
  SELECT j.id, j.queue, j.priority, j.status FROM unnest($1::uuid[]) AS w (id) JOIN jobs j ON j.id = w.id
  WHERE j.status || '' IN ({cancellable}) ORDER BY j.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET status = {cancelled}, cancel_reason = $2, finished_at = now(), updated_at = now()
  FROM wanted w WHERE j.id = w.id
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, status, {cancelled}, count(*) FROM wanted GROUP BY queue, status
)
SELECT id, queue, priority, status AS before FROM wanted
