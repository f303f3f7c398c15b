-- find_keys: the first answers that these idempotency keys stand for
-- $1 bigint owner · $2 text[] key
-- Returns: key, fingerprint, job_ids, created_at
-- LATERAL and LIMIT as in find_unique.
SELECT k.key, k.fingerprint, k.job_ids, k.created_at
FROM unnest((SELECT $2::text[])) AS w (key) CROSS JOIN LATERAL (
  SELECT k.key, k.fingerprint, k.job_ids, k.created_at FROM idempotency_keys k
  WHERE k.owner = $1 AND k.key = w.key AND k.expires_at > now() LIMIT 1) k
