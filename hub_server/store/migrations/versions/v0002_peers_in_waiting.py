"""A cluster that joins anew has two keys until the new one was used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Bring the schema here."""
    op.add_column("peers", sa.Column("is_pending", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index("uq_peers_live", table_name="peers")
    for name, condition in (
        ("uq_peers_live", "retired_at IS NULL AND NOT is_pending"),
        ("uq_peers_pending", "retired_at IS NULL AND is_pending"),
    ):
        where = sa.text(condition)
        op.create_index(name, "peers", ["cluster_id"], unique=True, sqlite_where=where, postgresql_where=where)
