-- prune_stragglers: delete completed jobs that landed outside the days' partitions and are older than their retention
-- $1 float8 retention in seconds · $2 int rows
-- Returns: deleted
WITH old AS MATERIALIZED (
  SELECT id, queue FROM jobs_done_default
  WHERE finished_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM jobs_done_default d USING old o WHERE d.id = o.id
), forgotten AS (
  DELETE FROM job_attempts a USING old o WHERE a.job_id = o.id
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, bucket, n)
  SELECT queue, {completed}, '', job_day(id), count(*) FROM old GROUP BY queue, job_day(id)
)
SELECT count(*) AS deleted FROM old
