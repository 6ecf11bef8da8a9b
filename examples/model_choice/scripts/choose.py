"""Of `DEGREE=ERROR` arguments the one with the least error; of equal ones, the simplest curve."""

import os
import sys
from pathlib import Path

errors = dict(pair.split("=") for pair in sys.argv[1:])
degree = min(errors, key=lambda one: (float(errors[one]), int(one)))
print(f"degree {degree}, with an error of {errors[degree]}")
with Path(os.environ["TITAN_OUTPUT"]).open("a", encoding="utf-8") as file:
    file.write(f"degree={degree}\nerror={errors[degree]}\n")
