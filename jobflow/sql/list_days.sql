-- list_days: the days that have a partition
-- Returns: day (as job_day counts)
SELECT substr(c.relname, length('jobs_done_') + 1)::int AS day
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'jobs_done'::regclass AND c.relname ~ '^jobs_done_[0-9]+$' ORDER BY day
