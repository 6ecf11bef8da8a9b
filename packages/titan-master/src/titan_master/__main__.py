"""``python -m titan_master`` is ``titan-master start``; with a command, it is ``titan-master``."""

from __future__ import annotations

import sys

from titan_master.cli import main, master

if __name__ == "__main__":
    words = sys.argv[1:]
    is_command = bool(words) and (
        words[0] in master.commands or words[0] in {"--version", "--help", "-h"}
    )
    main(words if is_command else ["start", *words])
