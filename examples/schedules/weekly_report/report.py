"""The figures of a week as a page of Markdown, dated by the slot and not by when it was made."""

import csv
import os
import pathlib

slot = os.environ.get("TITAN_SCHEDULED_FOR", "by hand")
with pathlib.Path("data/visits.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
visits = sum(int(row["visits"]) for row in rows)
orders = sum(int(row["orders"]) for row in rows)
best = max(rows, key=lambda row: int(row["orders"]))
figures = (
    f"{visits} visits, {orders} orders: {100 * orders / visits:.1f} % of them. "
    f"The best day was {best['day']} with {best['orders']} orders."
)
pathlib.Path("report.md").write_text(f"# The week before {slot[:10]}\n\n{figures}\n")
print(figures)
