-- get_attempts: the recorded runs of one job, oldest first
-- $1 uuid job_id
-- Returns: run_epoch, attempt, worker, started_at, finished_at, outcome, error_type, error_message, traceback
SELECT run_epoch, attempt, worker, started_at, finished_at, outcome, error_type, error_message, traceback
FROM job_attempts WHERE job_id = $1 ORDER BY run_epoch
