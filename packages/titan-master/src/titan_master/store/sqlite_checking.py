"""Does history hold what was written? Every row of it, against its checksum and its neighbours.

For ``doctor``: a question about one run checks the rows that it reads, and no others.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from titan_master.store import codec
from titan_master.store.sqlite_reading import (
    ACCEPTANCE,
    CHECKPOINTS_SINCE,
    accepted_in,
    read_formats,
)
from titan_master.store.sqlite_rows import SEALED, select_sealed

_JOBS_MISSING: Final = (
    "SELECT run.alias, run.jobs, (SELECT count(*) FROM history_job WHERE run_seq = run.seq) AS found "
    "FROM history_run AS run WHERE run.ended_at_ms IS NOT NULL AND found <> run.jobs"
)
_ENDED: Final = "SELECT seq, alias FROM history_run WHERE ended_at_ms IS NOT NULL"


def history_problems(connection: sqlite3.Connection, most: int) -> tuple[int, list[str]]:
    """How many runs have ended, and what is wrong, in words; at most so many."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (runs,) = connection.execute(
        "SELECT count(*) FROM history_run WHERE ended_at_ms IS NOT NULL"
    ).fetchone()
    found: list[str] = []
    if version < CHECKPOINTS_SINCE:
        return runs, found
    for table in SEALED:
        for row in connection.execute(select_sealed(table)):
            if row[-1] is not None and codec.row_crc(row[:-1]) != row[-1]:
                found.append(f"a row of {table} fails its checksum: {row[0]}, {row[1]}")
                if len(found) >= most:
                    return runs, found
    for alias, jobs, there in connection.execute(_JOBS_MISSING):
        found.append(f"run {alias} had {jobs} jobs, history has {there} of them")
    formats = read_formats(connection)
    for seq, alias in connection.execute(_ENDED):
        row = connection.execute(ACCEPTANCE, (seq,)).fetchone()
        if row is None or accepted_in(row, formats.of(seq)) is None:
            found.append(f"what was submitted as {alias} is missing or damaged")
    return runs, found[:most]
