"""Least squares: the polynomial of one degree that is nearest to points.csv, and its error."""

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--degree", type=int, required=True)
degree = parser.parse_args().degree
with Path("points.csv").open(encoding="utf-8") as file:
    points = [tuple(map(float, line.split(","))) for line in file]

# The normal equations, solved by elimination.
size = degree + 1
table = [
    [sum(x ** (row + column) for x, _ in points) for column in range(size)]
    + [sum(y * x**row for x, y in points)]
    for row in range(size)
]
for pivot in range(size):
    best = max(range(pivot, size), key=lambda row: abs(table[row][pivot]))
    table[pivot], table[best] = table[best], table[pivot]
    for row in range(size):
        if row != pivot:
            factor = table[row][pivot] / table[pivot][pivot]
            table[row] = [a - factor * b for a, b in zip(table[row], table[pivot], strict=True)]
curve = [table[row][size] / table[row][row] for row in range(size)]

squares = sum((y - sum(c * x**n for n, c in enumerate(curve))) ** 2 for x, y in points)
error = (squares / len(points)) ** 0.5
print(f"degree {degree}: error {error:.3f}")
with Path(os.environ["TITAN_OUTPUT"]).open("a", encoding="utf-8") as file:
    file.write(f"error={error:.3f}\n")
