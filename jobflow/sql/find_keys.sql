-- find_keys: the first answers that these idempotency keys stand for
-- $1 bigint owner · $2 text[] key
-- Returns: key, fingerprint, job_ids, created_at
SELECT k.key, k.fingerprint, k.job_ids, k.created_at
FROM unnest((SELECT $2::text[])) AS w (key) JOIN idempotency_keys k ON k.owner = $1 AND k.key = w.key
WHERE k.expires_at > now()
