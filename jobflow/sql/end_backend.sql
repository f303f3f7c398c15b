-- end_backend: end what may still be at work for a connection of ours that broke
-- $1 int process id of the server's side
-- Returns: whether it was still there
SELECT count(pg_terminate_backend(pid)) > 0 AS there FROM pg_stat_activity
WHERE pid = $1 AND usename = current_user AND application_name = 'jobflow'
