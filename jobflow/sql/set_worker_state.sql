-- set_worker_state: a process says that it drains or has stopped
-- $1 uuid id · $2 text state
-- Returns: nothing
UPDATE workers SET state = $2 WHERE id = $1 AND state IN ('alive', 'draining')
