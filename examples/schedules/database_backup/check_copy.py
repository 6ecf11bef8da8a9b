"""A copy that cannot be read is no backup."""

import os
import pathlib
import sqlite3
import sys

copy = pathlib.Path(os.environ["TITAN_SHARED"]) / "copy.sqlite"
connection = sqlite3.connect(copy)
(verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
if verdict != "ok":
    sys.exit(f"the copy is damaged: {verdict}")
tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
for (table,) in sorted(tables):
    (rows,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()  # noqa: S608
    print(f"{table}: {rows} rows")
connection.close()
