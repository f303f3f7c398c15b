-- list_queues: every queue as people set it up
-- Returns: name, paused (now), paused_until, paused_reason, created_at
SELECT name, paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > now()) AS paused,
       paused_until, paused_reason, created_at
FROM queues ORDER BY name
