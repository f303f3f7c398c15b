-- complete_jobs: accept successes and move their rows to jobs_done, as far as the fence (id, epoch, worker) holds
-- $1 uuid[] id · $2 bigint[] run_epoch · $3 uuid[] worker, or one for all · $4 text[] result (JSON or NULL), or
-- empty where all are NULL
-- Returns: id of each that was accepted
-- SKIP LOCKED: a row that somebody holds for long (a person's transaction) must not stop the other endings.
-- By primary key, then by place, as claim_jobs; one that was changed since this statement began is offered again.
WITH ended AS MATERIALIZED (
  SELECT h.place, e.result
  FROM (SELECT * FROM unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::uuid[]), (SELECT $4::text[]))
          AS g (id, run_epoch, worker, result) ORDER BY id) e CROSS JOIN LATERAL (
    SELECT j.ctid AS place FROM jobs j
    WHERE j.id = e.id AND j.status || '' = {processing} AND j.run_epoch = e.run_epoch
      AND j.locked_by = coalesce(e.worker, ($3::uuid[])[1])
    FOR UPDATE OF j SKIP LOCKED) h
), gone AS (
  DELETE FROM jobs j USING ended e WHERE j.ctid = e.place
  RETURNING j.id, j.owner, j.queue, j.type, j.priority, j.attempt, j.max_attempts, j.rescues, j.run_epoch, j.locked_by,
            j.run_at, j.timeout, j.expires_at, j.created_at, j.started_at, j.unique_key, j.group_key, j.flags, j.batch,
            j.schedule, j.trace_id, j.tags, j.payload, j.error_type, j.error_message, e.result::jsonb AS result
), kept AS (
  INSERT INTO jobs_done (id, owner, queue, type, priority, attempt, max_attempts, rescues, run_epoch, locked_by,
            run_at, timeout, expires_at, created_at, started_at, unique_key, group_key, flags, batch,
            schedule, trace_id, tags, payload, error_type, error_message, result, finished_at)
  SELECT *, now() FROM gone
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, bucket, n)
  SELECT queue, {processing}, {completed}, job_day(id), count(*) FROM gone GROUP BY queue, job_day(id)
)
SELECT id FROM gone
