-- read_endings: what became of endings that were not accepted?
-- $1 uuid[] id · $2 bigint[] run_epoch · $3 uuid[] worker
-- Returns: id, verdict: 'locked' (somebody holds the row: offer it again), 'mine' (an earlier commit of mine whose answer
-- was lost), 'completed' (the same, of a success) or 'lost' (the claim is somebody else's now)
-- A worker's own ending leaves its epoch on the row; everybody else's raises it.
SELECT e.id, CASE
    WHEN j.run_epoch = e.run_epoch AND j.locked_by = e.worker
      THEN CASE WHEN j.status || '' = {processing} THEN 'locked' ELSE 'mine' END
    WHEN d.run_epoch = e.run_epoch AND d.locked_by = e.worker THEN {completed}
    WHEN a.outcome NOT IN ({losses}) THEN 'mine'
    ELSE 'lost' END AS verdict
FROM unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::uuid[])) AS e (id, run_epoch, worker)
  LEFT JOIN jobs j ON j.id = ANY (ARRAY[e.id])
  LEFT JOIN jobs_done d ON d.id = e.id
  LEFT JOIN job_attempts a ON a.job_id = e.id AND a.run_epoch = e.run_epoch AND a.worker = e.worker
