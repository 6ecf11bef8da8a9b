"""The tables of the SQLite file, and how those of an older version become this one's.

Called by ``sqlite.py`` when it opens, and by whoever makes a new file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from titan_master.store import codec
from titan_master.store.sqlite_reading import CHECKPOINTS_SINCE

_SCHEMA: Final = Path(__file__).parent / "schema"
_MIGRATIONS: Final = (
    "0001_initial.sql",
    "0002_reruns.sql",
    "0003_gates.sql",
    "0004_checkpoint.sql",
    "0005_services.sql",
    "0006_outputs.sql",
    "0007_left.sql",
    "0008_home.sql",
    "0009_schedules.sql",
)
"""A release with a new one raises `JOURNAL_FORMAT`: an older master must refuse its files."""
_PUT_FORMAT: Final = "INSERT OR REPLACE INTO journal_format (seq, format, crc) VALUES (?, ?, ?)"


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to this version's, step by step, each step whole or not at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    is_new = not version
    for number, name in enumerate(_MIGRATIONS, 1):
        if number > version:
            script = (_SCHEMA / name).read_text(encoding="utf-8")
            connection.executescript(f"BEGIN;\n{script}")
            if number == 1:
                connection.execute(
                    "INSERT INTO meta VALUES ('format', 1), ('term', 0), ('history', 0)"
                )
            if number == CHECKPOINTS_SINCE:
                put_format(connection, 1, 1)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
    if is_new:
        connection.execute("BEGIN IMMEDIATE")
        begin_format(connection, 1)
        connection.execute("COMMIT")


def begin_format(connection: sqlite3.Connection, seq: int) -> None:
    """From this record on, what is written is of the present format."""
    written = codec.JOURNAL_FORMAT
    put_format(connection, seq, written)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (written,))


def put_format(connection: sqlite3.Connection, seq: int, written: int) -> None:
    """Note that records from this one on have that format."""
    connection.execute(_PUT_FORMAT, (seq, written, codec.format_crc(seq, written)))
