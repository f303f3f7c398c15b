-- find_unique: the live jobs that hold these unique keys
-- $1 bigint owner · $2 text[] unique_key
-- Returns: unique_key, id, status, created_at
SELECT j.unique_key, j.id, j.status, j.created_at
FROM unnest((SELECT $2::text[])) AS w (unique_key) JOIN jobs j ON j.owner = $1 AND j.unique_key = w.unique_key
WHERE j.status IN ({live})
