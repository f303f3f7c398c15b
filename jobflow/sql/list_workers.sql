-- list_workers: processes, living ones first
-- Returns: the columns of a Worker
SELECT w.id, w.kind, w.host, w.pid, w.version, w.state, w.concurrency, w.running, w.types, w.started_at, w.beat_at,
       w.lease_until, w.lease_until > now() AS lease_valid
FROM workers w ORDER BY w.state IN ('alive', 'draining') DESC, w.started_at DESC LIMIT 200
