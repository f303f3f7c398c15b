-- claim_jobs: take these jobs of one queue for this worker, as far as they are still due
-- $1 uuid[] id · $2 uuid worker · $3 text queue
-- Returns: what a Run needs
-- Goes by primary key by its shape. `(SELECT $1)` hides from the planner how many ids there are: knowing that it is 500, it
-- reads the whole index and looks up each of its entries among them (700 ms for 20,000 rows). `status || ''` and
-- `queue || ''` hide the partial indexes, for which it would else read every open row with its dead entries. The commit may
-- be forgotten by a crash of Postgres: the job is then pending again. That is why the epoch comes from the clock: a claim
-- made anew must not get the same one.
WITH fast AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true)
), due AS MATERIALIZED (
  SELECT j.id, j.status
  FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = w.id
  WHERE j.status || '' IN ({open}) AND j.run_at <= now() AND j.queue || '' = $3
    AND j.cancel_requested_at IS NULL AND (j.expires_at IS NULL OR j.expires_at > now())
    AND EXISTS (SELECT FROM fast, workers w WHERE w.id = $2 AND w.state = 'alive' AND w.lease_until > clock_timestamp())
    AND NOT EXISTS (SELECT FROM queues q WHERE q.name = $3 AND q.paused_at IS NOT NULL
                      AND (q.paused_until IS NULL OR q.paused_until > now()))
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), claimed AS (
  UPDATE jobs j
  SET status = {processing}, attempt = j.attempt + 1, locked_by = $2, started_at = now(), updated_at = now(),
      run_epoch = greatest(j.run_epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
  FROM due d WHERE j.id = d.id
  RETURNING j.id, j.run_epoch, j.type, j.priority, j.payload, j.attempt, j.max_attempts, j.rescues, j.timeout,
            j.run_at, j.started_at, d.status AS before
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT $3, before, {processing}, count(*) FROM claimed GROUP BY before
)
SELECT id, run_epoch, type, priority, payload::text, attempt, max_attempts, rescues, timeout, run_at, started_at FROM claimed
