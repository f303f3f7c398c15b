-- queue_rates: jobs in and out of each queue over the last whole minutes
-- $1 int minutes
-- Returns: queue, entered, finished (per second)
SELECT queue, sum(n) FILTER (WHERE before = '')::float8 / (60 * $1::int) AS entered,
       sum(n) FILTER (WHERE after IN ({final}))::float8 / (60 * $1::int) AS finished
FROM counter_minutes
WHERE minute >= date_trunc('minute', now()) - make_interval(mins => $1::int) AND minute < date_trunc('minute', now())
GROUP BY queue
