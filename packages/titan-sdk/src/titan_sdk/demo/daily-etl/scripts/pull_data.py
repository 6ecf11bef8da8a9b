"""EXTRACT: read the daily weather, refuse a broken file, hand the raw rows to the next job.

A job starts in the root of its packed folder, so the file that ships with the pipeline is
`data/seattle-weather.csv`. What is handed on goes into TITAN_SHARED, the run's own folder.
"""

import csv
import datetime
import json
import os
import pathlib
import sys

SOURCE = pathlib.Path("data/seattle-weather.csv")
COLUMNS = ["date", "precipitation", "temp_max", "temp_min", "wind", "weather"]


def read_rows(path):
    """Return the file's rows, or raise ValueError with the line that is wrong.

    Only the shape is judged here: right columns, a date on each row. Whether a number makes sense is
    for TRANSFORM, which may drop a row; a file of another shape must stop the run instead.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header != COLUMNS:
            raise ValueError(f"{path}:1: expected the columns {COLUMNS}, found {header}")
        rows = []
        for row in reader:
            if len(row) != len(COLUMNS):
                raise ValueError(
                    f"{path}:{reader.line_num}: expected {len(COLUMNS)} fields, found {len(row)}"
                )
            try:
                day = datetime.datetime.strptime(row[0], "%Y/%m/%d").date()  # noqa: DTZ007 - a day
            except ValueError:
                raise ValueError(
                    f"{path}:{reader.line_num}: {row[0]!r} is no date like 2012/01/31"
                ) from None
            rows.append({**dict(zip(COLUMNS, row, strict=True)), "date": day.isoformat()})
    if not rows:
        raise ValueError(f"{path}: no rows below the header")
    return rows


def write_atomically(path, value):
    """Write JSON so that a reader sees the whole file or none, even if this job is killed."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def main():
    shared = os.environ.get("TITAN_SHARED")
    if not shared:
        sys.exit("pull_data.py: TITAN_SHARED is not set; it names the folder for the result")
    try:
        rows = read_rows(SOURCE)
    except (OSError, ValueError) as error:
        sys.exit(f"pull_data.py: {error}")
    write_atomically(pathlib.Path(shared) / "raw.json", rows)
    print(f"pulled {len(rows)} rows, {rows[0]['date']} to {rows[-1]['date']}", flush=True)


if __name__ == "__main__":
    main()
