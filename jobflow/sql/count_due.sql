-- count_due: jobs that fell due and keep their status until they are claimed
-- Returns: queue, status, n
SELECT queue, status, count(*) AS n FROM jobs WHERE status IN ({later}) AND run_at <= now() GROUP BY queue, status
