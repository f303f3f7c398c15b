-- try_keys_lock: the lock above all names: shared by the writers of a few names, alone for the writer of very many,
-- whose single locks would not fit into the server's lock table
-- $1 boolean alone
-- Returns: got
SELECT CASE WHEN $1 THEN pg_try_advisory_xact_lock(hashtextextended('jobflow keys', 0))
            ELSE pg_try_advisory_xact_lock_shared(hashtextextended('jobflow keys', 0)) END AS got
