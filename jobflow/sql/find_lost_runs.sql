-- find_lost_runs: runs of processes that are lost or stopped
-- $1 boolean orphans: look also (reading every running row) for runs whose process is not known at all, and for those that
-- go on long after their deadline, which is started_at + timeout: their process beats, and does not end them
-- Returns: what a Run needs
-- Twice the timeout, because a plain function may wait for its thread as long as it may run; and a minute for all the rest.
(SELECT j.id, j.run_epoch, j.locked_by AS worker, j.type, j.queue, j.priority, j.attempt, j.max_attempts, j.rescues,
        j.timeout, j.run_at, j.started_at
 FROM workers w JOIN jobs j ON j.locked_by = w.id AND j.status = {processing}
 WHERE w.state IN ('lost', 'stopped') LIMIT 500)
UNION ALL
(SELECT j.id, j.run_epoch, j.locked_by AS worker, j.type, j.queue, j.priority, j.attempt, j.max_attempts, j.rescues,
        j.timeout, j.run_at, j.started_at
 FROM jobs j
 WHERE $1 AND j.status = {processing}
   AND (NOT EXISTS (SELECT FROM workers w WHERE w.id = j.locked_by)
        OR j.started_at < now() - make_interval(secs => 2 * j.timeout + 60))
 LIMIT 500)
