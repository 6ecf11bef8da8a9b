"""Count the words of a text, for the service that comes after: one `word<TAB>count` a line."""

import collections
import os
import pathlib
import re
import sys


def main() -> None:
    shared = os.environ.get("TITAN_SHARED", "")
    least = os.environ.get("MIN_LETTERS", "")
    if not shared:
        sys.exit("TITAN_SHARED is not set: this script runs as a job of Titan")
    if not least.isdecimal():
        sys.exit(f"MIN_LETTERS is {least!r}, not a number: see hybrid.env")
    if len(sys.argv) != 2:
        sys.exit("usage: prepare.py TEXT")
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").lower()
    counts = collections.Counter(
        word for word in re.findall(r"[a-z]+", text) if len(word) >= int(least)
    )
    lines = [f"{word}\t{count}\n" for word, count in sorted(counts.items())]
    (pathlib.Path(shared) / "words.tsv").write_text("".join(lines), encoding="utf-8")
    print(f"counted {counts.total()} words, {len(counts)} different ones")


if __name__ == "__main__":
    main()
