"""`python -m titan_dashboard` is `titan-dashboard`."""

from titan_dashboard.cli import main

if __name__ == "__main__":
    main(prog_name="titan-dashboard")
