-- try_locks: take the locks of these names, without ever waiting, until the transaction ends
-- $1 text[] name
-- Returns: name of each lock that was got
SELECT name FROM unnest($1::text[]) AS t (name) WHERE pg_try_advisory_xact_lock(hashtextextended(name, 0))
