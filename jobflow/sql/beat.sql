-- beat: renew the lease of a process that was not marked lost; a lease that lapsed unmarked is revived
-- $1 uuid id · $2 float8 lease in seconds · $3 int running
-- Returns: now, alive (living processes); no row when this process was marked lost
WITH fast AS MATERIALIZED (
  SELECT set_config('synchronous_commit', 'off', true)
), mine AS (
  UPDATE workers SET lease_until = clock_timestamp() + make_interval(secs => $2), beat_at = clock_timestamp(), running = $3
  FROM fast WHERE id = $1 AND state IN ('alive', 'draining')
  RETURNING 1
)
SELECT clock_timestamp() AS now,
       (SELECT count(*) FROM workers WHERE state = 'alive' AND kind = 'process') AS alive
FROM mine
