"""Lists find the jobs of any status, queue, type and tag by an index.

Writes wait until it is done, two or three seconds for each million rows. For big tables let Postgres build the same indexes
beforehand without stopping anybody (docs/operating.md); what is there already is taken over. Processes of the version
before go on with either schema.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = [
    # All but running jobs: those are few, and to index them would cost every claim a write. '' on purpose: a statement that
    # says less than this cannot go by it, so no hot one ever does.
    "CREATE INDEX IF NOT EXISTS jobs_kinds ON jobs (status, queue, type, id) WHERE '' || status <> 'processing'",
    "CREATE INDEX IF NOT EXISTS jobs_tags ON jobs USING gin (tags) WHERE tags <> '{}' AND status <> 'processing'",
    "CREATE INDEX IF NOT EXISTS jobs_done_kinds ON jobs_done (type, queue, id)",
    # What these served, the new ones serve.
    "DROP INDEX jobs_listed",
    "DROP INDEX jobs_done_type",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
