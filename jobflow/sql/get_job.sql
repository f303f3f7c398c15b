-- get_job: one job, wherever it is
-- $1 uuid id
-- Returns: the columns of a Job
SELECT id, type, status, queue, priority, payload, attempt, max_attempts, run_at, timeout, expires_at, unique_key, tags,
       NULL::jsonb AS result, error_type, error_message, rescues, run_epoch, locked_by,
       cancel_requested_at IS NOT NULL AS cancel_requested, cancel_reason, batch, schedule, trace_id,
       created_at, updated_at, started_at, finished_at
FROM jobs WHERE id = $1
UNION ALL
SELECT id, type, {completed}, queue, priority, payload, attempt, max_attempts, run_at, timeout, expires_at, unique_key, tags,
       result, error_type, error_message, rescues, run_epoch, locked_by,
       false, NULL, batch, schedule, trace_id,
       created_at, finished_at, started_at, finished_at
FROM jobs_done WHERE id = $1
