-- cancel_jobs: a person or a rule stops jobs; with `running`, those that run are asked to stop
-- $1 uuid[] id · $2 text reason · $3 boolean running
-- Returns: id, queue, priority, before of each that was stopped or asked
-- One statement for both: between two a job could start, or end, and neither would stop it.
WITH wanted AS MATERIALIZED (
  SELECT j.id, j.queue, j.priority, j.status FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
  WHERE j.status || '' IN ({cancellable}) OR ($3 AND j.status || '' = {processing} AND j.cancel_requested_at IS NULL)
  ORDER BY w.id FOR UPDATE OF j
), moved AS (
  UPDATE jobs j SET status = {cancelled}, cancel_reason = $2, finished_at = now(), updated_at = now()
  FROM wanted w WHERE j.id = ANY (ARRAY[w.id]) AND w.status <> {processing}
), asked AS (
  UPDATE jobs j SET cancel_requested_at = now(), cancel_reason = $2, updated_at = now()
  FROM wanted w WHERE j.id = ANY (ARRAY[w.id]) AND w.status = {processing}
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, status, {cancelled}, count(*) FROM wanted WHERE status <> {processing} GROUP BY queue, status
)
SELECT id, queue, priority, status AS before FROM wanted
