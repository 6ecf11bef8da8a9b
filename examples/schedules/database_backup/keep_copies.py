"""Keep it under its slot's name; of all that are kept, the newest seven stay."""

import os
import pathlib
import shutil

KEPT = 7

shared = pathlib.Path(os.environ["TITAN_SHARED"])
folder = pathlib.Path(os.environ.get("BACKUPS", shared / "backups"))
folder.mkdir(parents=True, exist_ok=True)
slot = os.environ.get("TITAN_SCHEDULED_FOR", "by-hand").replace(":", "")
kept = folder / f"backup-{slot}.sqlite"
shutil.copy(shared / "copy.sqlite", kept.with_suffix(".part"))
kept.with_suffix(".part").rename(kept)  # whole, or not there
for old in sorted(folder.glob("backup-*.sqlite"))[:-KEPT]:
    old.unlink()
print(f"kept {kept.name}, {len(list(folder.glob('backup-*.sqlite')))} in all")
