"""`python3 dashboard.py` in this folder is `titan-dashboard`."""

import importlib.util
import sys

if __name__ == "__main__":
    if importlib.util.find_spec("titan_dashboard") is None:
        sys.exit(
            f"error: titan-dashboard is not installed in this Python ({sys.executable})\n"
            "  try:  python3 run.py up     in the root of the checkout"
        )
    from titan_dashboard.cli import main

    main(prog_name="titan-dashboard")
