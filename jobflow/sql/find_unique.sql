-- find_unique: the live jobs that hold these unique keys
-- $1 bigint owner · $2 text[] unique_key
-- Returns: unique_key, id, status, created_at
-- LATERAL and LIMIT: a lookup for each key, also by a plan from when there were none (see claim_jobs).
SELECT j.unique_key, j.id, j.status, j.created_at
FROM unnest((SELECT $2::text[])) AS w (unique_key) CROSS JOIN LATERAL (
  SELECT j.unique_key, j.id, j.status, j.created_at FROM jobs j
  WHERE j.owner = $1 AND j.unique_key = w.unique_key AND j.status IN ({live}) LIMIT 1) j
