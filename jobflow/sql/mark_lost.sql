-- mark_lost: processes whose lease lapsed; a beat meets this on the row's lock, so exactly one of the two wins
-- $1 uuid myself, who never marks itself
-- Returns: id
UPDATE workers SET state = 'lost'
WHERE id IN (SELECT id FROM workers WHERE state IN ('alive', 'draining') AND lease_until < clock_timestamp() AND id <> $1
             ORDER BY id FOR UPDATE SKIP LOCKED)
  AND lease_until < clock_timestamp()
RETURNING id
