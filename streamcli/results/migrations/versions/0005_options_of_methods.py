"""Options that one method alone has, and the package that a method comes from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ADDED = ("param", "method_package")


def upgrade() -> None:
    """Add the columns."""
    for name in ADDED:
        op.add_column("runs", sa.Column(name, sa.String()))


def downgrade() -> None:
    """Take them away again."""
    for name in reversed(ADDED):
        op.drop_column("runs", name)
