-- find_status: where are these jobs, and since when?
-- $1 uuid[] id
-- Returns: id, status, owner, unique_key, updated_at
SELECT j.id, j.status, j.owner, j.unique_key, j.updated_at FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs j ON j.id = ANY (ARRAY[w.id])
UNION ALL
SELECT d.id, {completed}, d.owner, NULL, d.finished_at FROM unnest((SELECT $1::uuid[])) AS w (id) JOIN jobs_done d ON d.id = w.id
