-- prune_small: drop expired idempotency keys, old minutes of the charts and processes that ended long ago
-- $1 int rows of each kind
-- Returns: deleted
WITH keys AS (
  DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_keys WHERE expires_at < now() LIMIT $1)) RETURNING 1
), minutes AS (
  DELETE FROM counter_minutes WHERE ctid = ANY (ARRAY(SELECT ctid FROM counter_minutes WHERE minute < now() - interval '8 days' LIMIT $1)) RETURNING 1
), ended AS (
  DELETE FROM workers w
  WHERE state IN ('lost', 'stopped') AND beat_at < now() - interval '1 day'
    AND NOT EXISTS (SELECT FROM jobs j WHERE j.locked_by = w.id AND j.status = {processing}) RETURNING 1
)
SELECT (SELECT count(*) FROM keys) + (SELECT count(*) FROM minutes) + (SELECT count(*) FROM ended) AS deleted
