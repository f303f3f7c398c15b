-- audit_runs: what does Postgres think these identities of mine are running?
-- $1 uuid[] worker
-- Returns: what a Run needs, and cancel_requested
SELECT id, run_epoch, locked_by AS worker, type, queue, priority, attempt, max_attempts, rescues, timeout, run_at, started_at,
       cancel_requested_at IS NOT NULL AS cancel_requested
FROM jobs WHERE locked_by = ANY ($1::uuid[]) AND status = {processing}
