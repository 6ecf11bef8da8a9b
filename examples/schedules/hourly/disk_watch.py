"""Say how full the disk is; fail when it is nearly full, so that somebody hears of it."""

import os
import shutil
import sys

LIMIT_PERCENT = float(os.environ.get("LIMIT_PERCENT", "99.9"))

usage = shutil.disk_usage(".")
percent = 100 * usage.used / usage.total
print(f"{os.environ.get('TITAN_SCHEDULED_FOR', 'now')}: {percent:.1f} % of the disk is used")
sys.exit(0 if percent < LIMIT_PERCENT else f"that is more than {LIMIT_PERCENT} %")
