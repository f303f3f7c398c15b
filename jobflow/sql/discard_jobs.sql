-- discard_jobs: a person moves jobs that are not running to the dead-letter queue
-- $1 uuid[] id
-- Returns: id, queue, priority, before
WITH wanted AS MATERIALIZED (
  SELECT j.id, j.queue, j.priority, j.status FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
  WHERE j.status || '' IN ({discardable}) ORDER BY w.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET status = {dead_letter}, cancel_reason = NULL, finished_at = now(), updated_at = now(),
                    error_type = coalesce(j.error_type, 'Discarded'),
                    error_message = coalesce(j.error_message, 'Discarded by a person.')
  FROM wanted w WHERE j.id = ANY (ARRAY[w.id])
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, status, {dead_letter}, count(*) FROM wanted GROUP BY queue, status
)
SELECT id, queue, priority, status AS before FROM wanted
