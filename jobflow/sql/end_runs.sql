-- end_runs: write every ending but success, as far as the fence (id, epoch, worker) holds, and record it in the history
-- $1 uuid[] id · $2 bigint[] run_epoch · $3 uuid[] worker · $4 text[] status after · $5 text[] cause · $6 int[] attempt
-- $7 int[] rescues · $8 float8[] delay (NULL keeps run_at) · $9 text[] reason · $10 text[] error_type
-- $11 text[] error_message · $12 text[] traceback · $13 boolean[] recorded
-- $14 boolean revoke: raise the epoch, because somebody other than the run's own worker ends it
-- Returns: id, queue, priority, status, run_at of each that was accepted
-- A cancel request wins over every ending but success, be it a release, a snooze, a rescue or the last failure.
-- `(SELECT …)`, and an `ANY (ARRAY[…])` that no plan can begin with: by primary key, however many there are (see claim_jobs).
WITH ended AS MATERIALIZED (
  SELECT e.*, j.attempt AS run_attempt, j.started_at, j.queue, j.priority,
         CASE WHEN j.cancel_requested_at IS NOT NULL THEN {cancelled} ELSE e.after END AS status
  FROM unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::uuid[]), (SELECT $4::text[]), (SELECT $5::text[]),
              (SELECT $6::int[]), (SELECT $7::int[]), (SELECT $8::float8[]), (SELECT $9::text[]), (SELECT $10::text[]),
              (SELECT $11::text[]), (SELECT $12::text[]), (SELECT $13::boolean[]))
    AS e (id, run_epoch, worker, after, cause, attempt, rescues, delay, reason, error_type, error_message, traceback, recorded)
    JOIN jobs j ON j.id = ANY (ARRAY[e.id])
  WHERE j.status || '' = {processing} AND j.run_epoch = e.run_epoch AND j.locked_by = e.worker
  ORDER BY e.id FOR UPDATE OF j SKIP LOCKED
), moved AS (
  UPDATE jobs j
  SET status = e.status, attempt = e.attempt, rescues = e.rescues, updated_at = now(),
      run_epoch = CASE WHEN $14 THEN j.run_epoch + 1 ELSE j.run_epoch END,
      slot = NULL, key_slot = NULL,
      run_at = CASE WHEN e.delay IS NULL THEN j.run_at ELSE now() + make_interval(secs => e.delay) END,
      cancel_reason = CASE WHEN e.status = {cancelled} THEN coalesce(j.cancel_reason, e.reason) END,
      error_type = coalesce(e.error_type, j.error_type), error_message = coalesce(e.error_message, j.error_message),
      finished_at = CASE WHEN e.status IN ({final}) THEN now() END
  FROM ended e WHERE j.id = ANY (ARRAY[e.id])
  RETURNING j.id, j.queue, j.priority, j.status, j.run_at
), recorded AS (
  INSERT INTO job_attempts (job_id, run_epoch, attempt, worker, started_at, finished_at, outcome,
                            error_type, error_message, traceback)
  SELECT id, run_epoch, run_attempt, worker, started_at, now(), cause, error_type, error_message, nullif(traceback, '')
  FROM ended WHERE recorded OR status <> after
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, {processing}, status, count(*) FROM ended GROUP BY queue, status
)
SELECT id, queue, priority, status, run_at FROM moved
