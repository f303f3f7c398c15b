"""The first schema: live jobs, done jobs by day, history, processes, keys, counters.

Migrations are history: they hold literals, never words from jobflow.lifecycle.
"""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = [
    # The day of a UUIDv7 (RFC 9562): its first 48 bits are milliseconds since 1970.
    """
    CREATE FUNCTION job_day(id uuid) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
      (('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint / 86400000)::int
    """,
    """
    CREATE TABLE queues (
      name text PRIMARY KEY,
      paused_at timestamptz, paused_until timestamptz, paused_reason text,
      created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE workers (
      id uuid PRIMARY KEY,
      kind text NOT NULL DEFAULT 'process',
      host text NOT NULL, pid int NOT NULL, version text NOT NULL,
      state text NOT NULL CHECK (state IN ('alive', 'draining', 'lost', 'stopped')),
      concurrency int NOT NULL, running int NOT NULL DEFAULT 0, types text[] NOT NULL DEFAULT '{}',
      started_at timestamptz NOT NULL, beat_at timestamptz NOT NULL, lease_until timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    # Everything that is not completed. Three writes for an ordinary job: insert, claim, completion (which moves it away).
    """
    CREATE TABLE jobs (
      id uuid PRIMARY KEY,
      owner bigint NOT NULL DEFAULT 0,
      queue text NOT NULL, type text NOT NULL,
      priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
      status text NOT NULL CHECK (status IN ('waiting', 'scheduled', 'pending', 'processing', 'failed', 'dead_letter', 'cancelled')),
      attempt int NOT NULL DEFAULT 0, max_attempts int NOT NULL,
      rescues int NOT NULL DEFAULT 0 CHECK (rescues BETWEEN 0 AND 3),
      run_epoch bigint NOT NULL DEFAULT 0, locked_by uuid,
      run_at timestamptz NOT NULL, timeout float8 NOT NULL, expires_at timestamptz,
      created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, started_at timestamptz, finished_at timestamptz,
      cancel_requested_at timestamptz, cancel_reason text,
      unique_key text, group_key text, slot int, key_slot int, flags int NOT NULL DEFAULT 0,
      batch uuid, schedule text, trace_id text,
      tags text[] NOT NULL DEFAULT '{}', payload jsonb NOT NULL,
      error_type text, error_message text,
      CHECK (attempt BETWEEN 0 AND max_attempts),
      CHECK (status <> 'processing' OR locked_by IS NOT NULL),
      CHECK ((status IN ('dead_letter', 'cancelled')) = (finished_at IS NOT NULL))
    ) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,
            autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)
    """,
    "CREATE INDEX jobs_open ON jobs (queue, priority, run_at, id) WHERE status IN ('pending', 'scheduled', 'failed')",
    "CREATE INDEX jobs_running ON jobs (locked_by) WHERE status = 'processing'",
    "CREATE INDEX jobs_later ON jobs (status, queue, run_at) WHERE status IN ('scheduled', 'failed')",
    """
    CREATE INDEX jobs_listed ON jobs (status, id)
      WHERE status IN ('waiting', 'scheduled', 'failed', 'dead_letter', 'cancelled')
    """,
    "CREATE INDEX jobs_ended ON jobs (status, finished_at) WHERE status IN ('completed', 'dead_letter', 'cancelled')",
    """
    CREATE INDEX jobs_expiring ON jobs (expires_at)
      WHERE expires_at IS NOT NULL AND status IN ('waiting', 'pending', 'scheduled', 'failed')
    """,
    """
    CREATE UNIQUE INDEX jobs_unique ON jobs (owner, unique_key)
      WHERE unique_key IS NOT NULL AND status IN ('waiting', 'scheduled', 'pending', 'processing', 'failed')
    """,
    "CREATE UNIQUE INDEX jobs_slot ON jobs (queue, slot) WHERE slot IS NOT NULL",
    "CREATE UNIQUE INDEX jobs_key_slot ON jobs (queue, group_key, key_slot) WHERE key_slot IS NOT NULL",
    # Completed jobs, by the day of creation in their id; the filters of lists have their indexes here.
    """
    CREATE TABLE jobs_done (
      id uuid NOT NULL, owner bigint NOT NULL, queue text NOT NULL, type text NOT NULL, priority smallint NOT NULL,
      attempt int NOT NULL, max_attempts int NOT NULL, rescues int NOT NULL, run_epoch bigint NOT NULL, locked_by uuid,
      run_at timestamptz NOT NULL, timeout float8 NOT NULL, expires_at timestamptz,
      created_at timestamptz NOT NULL, started_at timestamptz, finished_at timestamptz NOT NULL,
      unique_key text, group_key text, flags int NOT NULL, batch uuid, schedule text, trace_id text,
      tags text[] NOT NULL, payload jsonb NOT NULL, result jsonb, error_type text, error_message text,
      PRIMARY KEY (id)
    ) PARTITION BY RANGE (id)
    """,
    "CREATE INDEX jobs_done_queue ON jobs_done (queue, id)",
    "CREATE INDEX jobs_done_type ON jobs_done (type, id)",
    "CREATE INDEX jobs_done_tags ON jobs_done USING gin (tags) WHERE tags <> '{}'",
    "CREATE TABLE jobs_done_default PARTITION OF jobs_done DEFAULT",
    # Runs that tell something: an ordinary success is on its job's row alone.
    """
    CREATE TABLE job_attempts (
      job_id uuid NOT NULL, run_epoch bigint NOT NULL, attempt int NOT NULL, worker uuid,
      started_at timestamptz, finished_at timestamptz NOT NULL, outcome text NOT NULL,
      error_type text, error_message text, traceback text,
      PRIMARY KEY (job_id, run_epoch)
    ) PARTITION BY RANGE (job_id)
    """,
    "CREATE TABLE job_attempts_default PARTITION OF job_attempts DEFAULT",
    """
    CREATE TABLE idempotency_keys (
      owner bigint NOT NULL, key text NOT NULL, fingerprint bytea NOT NULL, job_ids uuid[] NOT NULL,
      created_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
      PRIMARY KEY (owner, key)
    )
    """,
    "CREATE INDEX idempotency_keys_expiry ON idempotency_keys USING brin (expires_at)",
    # Every statement that moves jobs appends how many moved from where to where; the folder adds them up each second.
    # An empty word stands for "not there": '' to pending is a new job, completed to '' a pruned one.
    """
    CREATE TABLE counter_deltas (
      queue text NOT NULL, before text NOT NULL, after text NOT NULL, bucket int NOT NULL DEFAULT 0, n bigint NOT NULL,
      at timestamptz NOT NULL DEFAULT now()
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)
    """,
    """
    CREATE TABLE counters (
      queue text NOT NULL, before text NOT NULL, after text NOT NULL, bucket int NOT NULL, n bigint NOT NULL,
      PRIMARY KEY (queue, before, after, bucket)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE counter_minutes (
      minute timestamptz NOT NULL, queue text NOT NULL, before text NOT NULL, after text NOT NULL, n bigint NOT NULL,
      PRIMARY KEY (minute, queue, before, after)
    )
    """,
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
