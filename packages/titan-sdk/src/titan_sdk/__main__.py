"""`python -m titan_sdk` is `titan`."""

from titan_sdk.cli import main

if __name__ == "__main__":
    main(prog_name="titan")
