"""TRANSFORM: drop what cannot be true, then add the days up by month.

Reads raw.json and writes monthly.json, both in TITAN_SHARED.
"""

import collections
import json
import math
import os
import pathlib
import sys

COLDEST, HOTTEST = -90.0, 60.0  # degrees Celsius; nothing outside was ever measured on Earth


def parse(row):
    """Return the row's numbers, or None where one is missing or impossible."""
    try:
        rain, warmest, coldest = (
            float(row[name]) for name in ("precipitation", "temp_max", "temp_min")
        )
    except ValueError:
        return None
    if not all(math.isfinite(number) for number in (rain, warmest, coldest)):
        return None
    if rain < 0 or not COLDEST <= coldest <= warmest <= HOTTEST:
        return None
    return rain, warmest, coldest


def clean(rows):
    """Return the usable rows by date; of two rows for one day the later one is the correction."""
    days = {}
    for row in rows:
        numbers = parse(row)
        if numbers is not None:
            days[row["date"]] = numbers
    return days


def by_month(days):
    """Return each month's figures, oldest month first."""
    months = collections.defaultdict(list)
    for date, numbers in days.items():
        months[date[:7]].append(numbers)
    return {
        month: {
            "month": month,
            "days": len(numbers),
            "temp_max_mean": round(math.fsum(n[1] for n in numbers) / len(numbers), 2),
            "temp_min_mean": round(math.fsum(n[2] for n in numbers) / len(numbers), 2),
            "precipitation_total": round(math.fsum(n[0] for n in numbers), 2),
            "rainy_days": sum(n[0] > 0 for n in numbers),
        }
        for month, numbers in sorted(months.items())
    }


def main():
    shared = os.environ.get("TITAN_SHARED")
    if not shared:
        sys.exit("clean_data.py: TITAN_SHARED is not set; it names the folder with raw.json")
    folder = pathlib.Path(shared)
    try:
        rows = json.loads((folder / "raw.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"clean_data.py: no raw.json in {folder}; has EXTRACT run?")
    days = clean(rows)
    if not days:
        sys.exit(f"clean_data.py: none of {len(rows)} rows is usable")
    months = by_month(days)
    # Written beside and then renamed: a server that reads it while this job is killed sees the whole
    # file or none.
    part = folder / f"monthly.json.{os.getpid()}.part"
    part.write_text(json.dumps(months, indent=1), encoding="utf-8")
    part.replace(folder / "monthly.json")
    print(f"{len(days)} days in {len(months)} months; rows left out: {len(rows) - len(days)}")


if __name__ == "__main__":
    main()
