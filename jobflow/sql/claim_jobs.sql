-- claim_jobs: take these jobs of one queue for this worker, as far as they are still due
-- $1 uuid[] id · $2 uuid worker · $3 text queue
-- Returns: what a Run needs
-- Goes by primary key by its shape, one lookup for each id. A plain join reads the whole index wherever the planner knows that
-- the ids are many, or has seen a vacuum find the table empty (0.7 s for each batch beside 20,000 rows): so LATERAL, and
-- `(SELECT $1)`. `status || ''` and `queue || ''` hide the partial indexes. The second time rows are found by their place, which
-- a lock keeps; one that was changed since this statement began is passed over, and found again by the sweep.
-- The commit may be forgotten by a crash of Postgres: the job is then pending again. That is why the epoch comes from the
-- clock: a claim made anew must not get the same one.
WITH fast AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true)
), due AS MATERIALIZED (
  SELECT h.place, h.status
  FROM (SELECT id FROM unnest((SELECT $1::uuid[])) AS g (id) ORDER BY id) i CROSS JOIN LATERAL (
    SELECT j.ctid AS place, j.status FROM jobs j
    WHERE j.id = i.id AND j.status || '' IN ({open}) AND j.run_at <= now() AND j.queue || '' = $3
      AND j.cancel_requested_at IS NULL AND (j.expires_at IS NULL OR j.expires_at > now())
      AND EXISTS (SELECT FROM fast, workers w WHERE w.id = $2 AND w.state = 'alive' AND w.lease_until > clock_timestamp())
      AND NOT EXISTS (SELECT FROM queues q WHERE q.name = $3 AND q.paused_at IS NOT NULL
                        AND (q.paused_until IS NULL OR q.paused_until > now()))
    FOR UPDATE OF j SKIP LOCKED) h
), claimed AS (
  UPDATE jobs j
  SET status = {processing}, attempt = j.attempt + 1, locked_by = $2, started_at = now(), updated_at = now(),
      run_epoch = greatest(j.run_epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
  FROM due d WHERE j.ctid = d.place
  RETURNING j.id, j.run_epoch, j.type, j.priority, j.payload, j.attempt, j.max_attempts, j.rescues, j.timeout,
            j.run_at, j.started_at, d.status AS before
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT $3, before, {processing}, count(*) FROM claimed GROUP BY before
)
SELECT id, run_epoch, type, priority, payload::text, attempt, max_attempts, rescues, timeout, run_at, started_at FROM claimed
