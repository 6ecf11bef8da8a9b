"""Copy a database that may be in use: SQLite's own backup, page by page, of one moment."""

import os
import pathlib
import sqlite3

shared = pathlib.Path(os.environ["TITAN_SHARED"])
target = sqlite3.connect(shared / "copy.sqlite")
named = os.environ.get("DATABASE")
if named:
    source = sqlite3.connect(f"{pathlib.Path(named).absolute().as_uri()}?mode=ro", uri=True)
else:
    source = sqlite3.connect(":memory:")
    source.executescript(pathlib.Path("sample/shop.sql").read_text())
source.backup(target)
source.close()
target.close()
print(f"copied {named or 'the sample'}: {(shared / 'copy.sqlite').stat().st_size} bytes")
