"""A job that goes wrong and says so: what the agent beside it has to notice."""

import sys

print("reading the plan", flush=True)
print("ERROR: the plan has no step 2", file=sys.stderr)
