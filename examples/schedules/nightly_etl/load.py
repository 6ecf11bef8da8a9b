"""Totals by customer into a database, under the slot that this run is for: twice is once."""

import json
import os
import pathlib
import sqlite3

shared = pathlib.Path(os.environ["TITAN_SHARED"])
slot = os.environ.get("TITAN_SCHEDULED_FOR", "by hand")
totals: dict[str, int] = {}
for order in json.loads((shared / "orders.json").read_text()):
    totals[order["customer"]] = totals.get(order["customer"], 0) + int(order["cents"])

connection = sqlite3.connect(os.environ.get("TARGET", shared / "totals.sqlite"))
with connection:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS total (slot TEXT, customer TEXT, cents INTEGER, "
        "PRIMARY KEY (slot, customer))"
    )
    connection.executemany(
        "INSERT OR REPLACE INTO total VALUES (?, ?, ?)",
        [(slot, customer, cents) for customer, cents in sorted(totals.items())],
    )
connection.close()
print(
    f"for {slot}: "
    + ", ".join(f"{name} {cents / 100:.2f}" for name, cents in sorted(totals.items()))
)
