-- insert_keys: remember the answers of these keys for a day; a key that has expired is used anew
-- $1 bigint owner · $2 text[] key · $3 bytea[] fingerprint · $4 text[] job_ids (uuid array literals) · $5 float8 seconds kept
-- Returns: nothing
INSERT INTO idempotency_keys AS k (owner, key, fingerprint, job_ids, created_at, expires_at)
SELECT $1, g.key, g.fingerprint, g.job_ids::uuid[], now(), now() + make_interval(secs => $5)
FROM unnest($2::text[], $3::bytea[], $4::text[]) AS g (key, fingerprint, job_ids)
ON CONFLICT (owner, key) DO UPDATE
  SET fingerprint = excluded.fingerprint, job_ids = excluded.job_ids,
      created_at = excluded.created_at, expires_at = excluded.expires_at
