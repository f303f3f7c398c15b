-- add_queues: make queues known to every process
-- $1 text[] name
-- Returns: nothing
INSERT INTO queues (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO NOTHING
