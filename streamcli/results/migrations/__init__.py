"""How the schema came to be, step by step, and whether a database has come all the way.

To change the schema: add ``versions/NNNN_what.py`` with ``revision = "NNNN"``, the next number, and
``down_revision`` the one before. Alembic itself is imported only where there is a step to take.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from core.errors import StreamError, UsageError

FOLDER = Path(__file__).parent
LOCK = 2309_17453  # any number, the same in every version: PostgreSQL locks by number


def known() -> list[str]:
    """Every revision of this version of streamcli, oldest first."""
    return sorted(path.stem[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))


def current(connection: Connection, place: str) -> bool:
    """Whether the database needs no migration. Only reads.

    Raises:
        UsageError: It was written by a newer version, or is another program's.
    """
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise UsageError(
                f"{place} holds another program's tables ({tables[0]}): choose another with --db."
            )
        return False
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and revision not in known():
        raise UsageError(
            f"{place} was written by a newer streamcli (schema {revision}, this one knows "
            f"{known()[-1]}): upgrade, or choose another with --db."
        )
    if revision is None and len(tables) > 1:
        raise StreamError(
            f"{place} does not say which schema it has (its table alembic_version is empty): put "
            "back a copy, or choose another with --db."
        )
    return revision == known()[-1]


def upgrade(connection: Connection, place: str) -> None:
    """Take every missing step in the transaction of ``connection``, one process at a time.

    On SQLite the transaction must hold the write lock already.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    if current(connection, place):  # another process was faster
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
