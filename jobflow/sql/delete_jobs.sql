-- delete_jobs: remove jobs that are not running, with their history
-- $1 uuid[] id
-- Returns: id, queue, priority, before
WITH wanted AS MATERIALIZED (
  SELECT j.id FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
  WHERE j.status || '' <> {processing} ORDER BY w.id FOR UPDATE OF j
), gone AS (
  DELETE FROM jobs j USING wanted w WHERE j.id = ANY (ARRAY[w.id]) RETURNING j.id, j.queue, j.priority, j.status, 0 AS bucket
), gone_done AS (
  DELETE FROM jobs_done d USING unnest((SELECT $1::uuid[])) AS w (id) WHERE d.id = w.id
  RETURNING d.id, d.queue, d.priority, {completed} AS status, job_day(d.id) AS bucket
), every AS (
  SELECT * FROM gone UNION ALL SELECT * FROM gone_done
), forgotten AS (
  DELETE FROM job_attempts a USING every e WHERE a.job_id = e.id
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, bucket, n)
  SELECT queue, status, '', bucket, count(*) FROM every GROUP BY queue, status, bucket
)
SELECT id, queue, priority, status AS before FROM every
