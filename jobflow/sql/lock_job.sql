-- lock_job: hold one job's row until the transaction ends
-- $1 uuid id
-- Returns: an empty row, or none
SELECT FROM jobs WHERE id = $1::uuid FOR UPDATE
