-- fold_counters: add the deltas to the totals and to the minutes; one process at a time
-- Returns: folded
WITH fast AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true), pg_try_advisory_xact_lock(hashtextextended('jobflow folder', 0)) AS got
), taken AS (
  DELETE FROM counter_deltas WHERE (SELECT got FROM fast) RETURNING queue, before, after, bucket, n, at
), totals AS (
  INSERT INTO counters AS c (queue, before, after, bucket, n)
  SELECT queue, before, after, bucket, sum(n) FROM taken GROUP BY queue, before, after, bucket
  ON CONFLICT (queue, before, after, bucket) DO UPDATE SET n = c.n + excluded.n
), minutes AS (
  INSERT INTO counter_minutes AS c (minute, queue, before, after, n)
  SELECT date_trunc('minute', at), queue, before, after, sum(n) FROM taken GROUP BY date_trunc('minute', at), queue, before, after
  ON CONFLICT (minute, queue, before, after) DO UPDATE SET n = c.n + excluded.n
)
SELECT count(*) AS folded FROM taken
