-- prune_jobs: delete jobs that ended unfinished and are older than their retention
-- $1 text status · $2 float8 retention in seconds · $3 int rows
-- Returns: deleted
WITH old AS MATERIALIZED (
  SELECT id, queue FROM jobs
  WHERE status IN ({final}) AND status = $1 AND finished_at < now() - make_interval(secs => $2)
  ORDER BY finished_at LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM jobs j USING old o WHERE j.id = ANY (ARRAY[o.id])
), forgotten AS (
  DELETE FROM job_attempts a USING old o WHERE a.job_id = o.id
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n) SELECT queue, $1, '', count(*) FROM old GROUP BY queue
)
SELECT count(*) AS deleted FROM old
