-- estimate_tag: how many completed jobs have this tag, by the statistics of each day; 0 when it was not seen often enough
-- $1 text[] one tag
-- Returns: n
SELECT coalesce(sum(c.reltuples * s.most_common_elem_freqs[array_position(s.most_common_elems::text::text[], (CAST($1 AS text[]))[1])]), 0) AS n
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = 'tags'
WHERE i.inhparent = 'jobs_done'::regclass
