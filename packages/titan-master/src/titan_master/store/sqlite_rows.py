"""Rows of history → tables, each with its checksum.

What they say was decided by ``projection.py``; when they are written, by ``sqlite.py``. A checksum is
over the columns named here, in this order: a migration that adds one sets the checksums of the rows
that are there to NULL, which is "unknown".
"""

from __future__ import annotations

import sqlite3
from typing import Final

from titan_master.store import codec
from titan_master.store.projection import Rows

SEALED: Final = {
    "history_run": (
        *("seq", "run_id", "alias", "name", "state", "jobs", "accepted_at_ms", "ended_at_ms"),
        *("counts", "rerun_of", "fired"),
    ),
    "history_ready": ("run_seq", "seq", "at_ms", "job_ids"),
    "history_job": (
        *("run_seq", "job_id", "state", "reason", "exit_code", "signal", "message", "lost"),
        *("ended_at_ms", "failures"),
    ),
    "history_attempt": (
        *("run_seq", "job_id", "number", "worker", "worker_id", "ended", "reason", "exit_code"),
        *("signal", "message", "placed_at_ms", "started_at_ms", "ended_at_ms", "stdout_bytes"),
        *("stderr_bytes", "port"),
    ),
    "history_gate": (
        *("run_seq", "job_id", "opened_at_ms", "expires_at_ms", "decided_at_ms", "decided_by"),
        "comment",
    ),
    "history_service": (
        *("run_seq", "job_id", "number", "name", "state", "healthy_at_ms", "ended_at_ms", "seq"),
    ),
    "history_output": ("run_seq", "job_id", "outputs"),
    "history_left": ("run_seq", "job_id", "place", "files"),
    "history_home": ("run_seq", "job_id", "home"),
}
"""The tables whose rows have a checksum, and the columns that it is over."""


def select_sealed(table: str, rest: str = "") -> str:
    """A query for rows of a table: their columns, and last the checksum."""
    return f"SELECT {', '.join(SEALED[table])}, crc FROM {table} {rest}"  # noqa: S608 - constants


def _put(table: str) -> str:
    names = SEALED[table]
    places = ", ".join("?" * (len(names) + 1))
    return f"INSERT OR REPLACE INTO {table} ({', '.join(names)}, crc) VALUES ({places})"  # noqa: S608


_INSERT_RUN: Final = (
    "INSERT OR REPLACE INTO history_run "
    "(seq, run_id, alias, name, state, jobs, accepted_at_ms, rerun_of, fired) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_END_RUN: Final = (
    "UPDATE history_run SET state = ?, ended_at_ms = ?, counts = ("
    "SELECT json_group_object(state, jobs) FROM ("
    "SELECT state, count(*) AS jobs FROM history_job WHERE run_seq = ? GROUP BY state"
    ")) WHERE seq = ?"
)
_PUT_READY: Final = _put("history_ready")
_PUT_JOB: Final = _put("history_job")
_PUT_ATTEMPT: Final = _put("history_attempt")
_PUT_GATE: Final = _put("history_gate")
_PUT_SERVICE: Final = _put("history_service")
_PUT_OUTPUT: Final = _put("history_output")
_PUT_LEFT: Final = _put("history_left")
_PUT_HOME: Final = _put("history_home")
_RUN: Final = select_sealed("history_run", "WHERE seq = ?")


def write_history(connection: sqlite3.Connection, rows: Rows, seq: int) -> None:
    """Write all rows up to record `seq`, in the transaction that is under way."""
    if rows.accepted:
        connection.executemany(_INSERT_RUN, rows.accepted)
    for statement, lines in (
        (_PUT_READY, rows.ready),
        (_PUT_ATTEMPT, rows.attempts),
        (_PUT_JOB, rows.jobs),
        (_PUT_GATE, rows.gates),
        (_PUT_SERVICE, rows.services),
        (_PUT_OUTPUT, rows.outputs),
        (_PUT_LEFT, rows.left),
        (_PUT_HOME, rows.homes),
    ):
        if lines:
            sealed = [(*line, codec.row_crc(line)) for line in lines]
            connection.executemany(statement, sealed)
    for line in rows.ended:
        connection.execute(_END_RUN, line)
        # Its counts were taken from the rows of its jobs: only now is there all that is sealed.
        run_seq = line[-1]
        *values, _ = connection.execute(_RUN, (run_seq,)).fetchone()
        crc = codec.row_crc(tuple(values))
        connection.execute("UPDATE history_run SET crc = ? WHERE seq = ?", (crc, run_seq))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'history'", (seq,))
