"""The smallest job: says where it runs."""

import os
import platform

job = os.environ.get("TITAN_JOB_ID", "no job")
print(f"Hello from {job} on {platform.node()}, Python {platform.python_version()}")
