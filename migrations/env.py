"""Alembic's entry: jobflow.migrate hands over the one connection whose transaction holds the lock."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)
context.run_migrations()
