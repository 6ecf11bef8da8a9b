"""``python -m titan_worker``."""

from titan_worker.cli import main

main()
