-- find_jobs: which of these were committed? Asked after an insert whose answer was lost; a finished one may have moved
-- $1 uuid[] id
-- Returns: id, created_at
SELECT j.id, j.created_at FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
UNION ALL
SELECT d.id, d.created_at FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs_done d ON d.id = w.id
