"""Each order once, and only those with a price; what is left out is counted."""

import csv
import json
import os
import pathlib

shared = pathlib.Path(os.environ["TITAN_SHARED"])
orders: dict[str, dict[str, str]] = {}
bad = 0
with (shared / "orders.csv").open(newline="") as file:
    for row in csv.DictReader(file):
        if row["cents"].isdigit():
            orders[row["order"]] = row
        else:
            bad += 1
(shared / "orders.json").write_text(json.dumps(list(orders.values())))
print(f"{len(orders)} orders, {bad} without a price")
