-- register_worker: this process takes a new identity
-- $1 uuid id · $2 text host · $3 int pid · $4 text version · $5 int concurrency · $6 text[] types · $7 float8 lease in seconds
-- Returns: now (of the server)
INSERT INTO workers (id, host, pid, version, concurrency, types, state, started_at, beat_at, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, 'alive', now(), now(), clock_timestamp() + make_interval(secs => $7))
RETURNING clock_timestamp() AS now
