-- handled_types: types that some living process handles
-- Returns: type
SELECT DISTINCT unnest(types) AS type FROM workers WHERE state = 'alive' AND concurrency > 0 AND lease_until > now()
