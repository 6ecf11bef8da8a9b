"""Points of a curve with some noise, always the same: x,y lines in points.csv."""

import argparse
import math
import random
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, required=True)
parser.add_argument("--source", required=True)
asked = parser.parse_args()
if asked.source == "broken":
    sys.exit("the source of the points does not answer")
noise = random.Random(7)
with Path("points.csv").open("w", encoding="utf-8") as file:
    for row in range(asked.rows):
        x = 2 * row / asked.rows - 1
        file.write(f"{x},{math.sin(3 * x) + noise.gauss(0, 0.05)}\n")
print(f"{asked.rows} points")
