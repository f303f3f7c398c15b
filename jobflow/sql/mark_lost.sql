-- mark_lost: processes whose lease lapsed; a beat meets this on the row's lock, so exactly one of the two wins
-- $1 uuid myself, who never marks itself · $2 timestamptz when this was sent (NULL: now)
-- Returns: id
-- Only within a second of being sent: when Postgres stood still meanwhile, everybody's lease has lapsed, and the living
-- must be able to beat before anybody is judged.
UPDATE workers SET state = 'lost'
WHERE id IN (SELECT id FROM workers WHERE state IN ('alive', 'draining') AND lease_until < clock_timestamp() AND id <> $1
             ORDER BY id FOR UPDATE SKIP LOCKED)
  AND lease_until < clock_timestamp() AND clock_timestamp() < coalesce($2::timestamptz, now()) + interval '1 second'
RETURNING id
