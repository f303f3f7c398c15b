-- insert_jobs: commit new jobs, all or none
-- $1 bigint[] owner · $2 uuid[] id · $3 text[] queue · $4 text[] type · $5 smallint[] priority · $6 text[] payload (JSON)
-- $7 int[] max_attempts · $8 float8[] timeout · $9 timestamptz[] run_at · $10 float8[] delay · $11 timestamptz[] expires_at
-- $12 text[] unique_key · $13 text[] tags (JSON array or NULL); all but $2 and $6 may be shorter: those up to
-- $8 hold one value where it is the same for all, those from $9 on none where all are NULL
-- Returns: created_at, once
WITH given AS (
  SELECT id, coalesce(owner, ($1::bigint[])[1]) AS owner, coalesce(queue, ($3::text[])[1]) AS queue,
         coalesce(type, ($4::text[])[1]) AS type, coalesce(priority, ($5::smallint[])[1]) AS priority, payload,
         coalesce(max_attempts, ($7::int[])[1]) AS max_attempts, coalesce(timeout, ($8::float8[])[1]) AS timeout,
         greatest(coalesce(run_at, now() + make_interval(secs => delay), now()), now()) AS due, expires_at, unique_key, tags
  FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::int[], $8::float8[],
              $9::timestamptz[], $10::float8[], $11::timestamptz[], $12::text[], $13::text[])
    AS g (owner, id, queue, type, priority, payload, max_attempts, timeout, run_at, delay, expires_at, unique_key, tags)
), new AS (
  INSERT INTO jobs (id, owner, queue, type, priority, status, max_attempts, run_at, timeout, expires_at,
                    created_at, updated_at, unique_key, tags, payload)
  SELECT id, owner, queue, type, priority, CASE WHEN due > now() THEN {scheduled} ELSE {pending} END,
         max_attempts, due, timeout, expires_at, now(), now(), unique_key,
         CASE WHEN tags IS NULL THEN '{}' ELSE ARRAY(SELECT jsonb_array_elements_text(tags::jsonb)) END, payload::jsonb
  FROM given
  RETURNING queue, status
), counted AS (
  INSERT INTO counter_deltas (queue, before, after, n)
  SELECT queue, '', status, count(*) FROM new GROUP BY queue, status
)
SELECT now() AS created_at
