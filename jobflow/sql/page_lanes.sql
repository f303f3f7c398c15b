-- page_lanes: the next rows of some lanes of one queue, in order
-- $1 text queue · $2 smallint[] priority · $3 timestamptz[] run_at and $4 uuid[] id of the last row seen (NULL: from the head)
-- $5 int rows for each lane · $6 timestamptz only rows due before this (NULL: all)
-- Returns: priority, run_at, id
SELECT l.priority, h.run_at, h.id
FROM unnest($2::smallint[], $3::timestamptz[], $4::uuid[]) AS l (priority, run_at, id) CROSS JOIN LATERAL (
  SELECT j.run_at, j.id FROM jobs j
  WHERE j.queue = $1 AND j.priority = l.priority AND j.status IN ({open})
    AND (j.run_at, j.id) > (coalesce(l.run_at, '-infinity'), coalesce(l.id, '00000000-0000-0000-0000-000000000000'))
    AND j.run_at < coalesce($6::timestamptz, 'infinity')
  ORDER BY j.run_at, j.id LIMIT $5) h
