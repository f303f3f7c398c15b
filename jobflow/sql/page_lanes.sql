-- page_lanes: the next rows of some lanes of one queue, in order
-- $1 text queue · $2 smallint[] priority · $3 timestamptz[] run_at and $4 uuid[] id of the last row seen (NULL: from the head)
-- $5 int rows for each lane · $6 timestamptz only rows due before this (NULL: all)
-- Returns: priority, page: 24 bytes for each row, its run_at and id as the protocol sends them; no row for a lane without any
-- Packed here, because most pages go to Redis as they are: to unpack them would cost Python more than all else about them.
SELECT l.priority, h.page
FROM unnest($2::smallint[], $3::timestamptz[], $4::uuid[]) AS l (priority, run_at, id) CROSS JOIN LATERAL (
  SELECT string_agg(r.packed, ''::bytea) AS page FROM (
    SELECT timestamptz_send(j.run_at) || uuid_send(j.id) AS packed FROM jobs j
    WHERE j.queue = $1 AND j.priority = l.priority AND j.status IN ({open})
      AND (j.run_at, j.id) > (coalesce(l.run_at, '-infinity'), coalesce(l.id, '00000000-0000-0000-0000-000000000000'))
      AND j.run_at < coalesce($6::timestamptz, 'infinity')
    ORDER BY j.run_at, j.id LIMIT $5) r) h
WHERE h.page IS NOT NULL
