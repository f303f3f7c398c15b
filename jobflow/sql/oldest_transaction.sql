-- oldest_transaction: the transaction that has been open for longest, if longer than so many seconds
-- $1 float8 seconds
-- Returns: pid, name (as its program calls itself), seconds
-- While it is open, nothing that died since it began can be swept away. Sessions of other roles are seen only by a role
-- with pg_read_all_stats.
SELECT pid, application_name AS name, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
  AND xact_start < clock_timestamp() - make_interval(secs => $1)
ORDER BY xact_start LIMIT 1
