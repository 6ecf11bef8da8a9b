"""Which attempts have ended here, whose logs the master still lacks, whose folders may go.

Small text files in the worker's private folder, one per hour of endings, one line appended per
fact: ``ended``, ``shipped``. They survive the process (they are not synced), and belong to one
worker even where several share a workspace. In memory are only the attempts whose logs are owed.
Which folders go, and when, ``retention`` decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final, NamedTuple

from titan_proto.ids import AttemptRef
from titan_worker.workspace import may_have_folder

HOUR_MS: Final = 3600 * 1000
SWEEP_MAX: Final = 500
"""So many folders go in one portion."""

_ENDED: Final = "ended"
_SHIPPED: Final = "shipped"
_OWES: Final = "owes"


class Portion(NamedTuple):
    """Attempts whose folders may go now."""

    hour: int
    refs: tuple[AttemptRef, ...]
    end: int
    """How far in that hour's file they reach; 0: it has no more."""


class Endings:
    """The list."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owing: dict[AttemptRef, None] = {}
        self._hour = -1
        self._file: IO[str] | None = None
        # How far the oldest hour has been swept by this process.
        self._swept: dict[int, int] = {}

    def open(self) -> None:
        """Read what earlier processes wrote."""
        self._folder.mkdir(exist_ok=True)
        for hour in self._hours():
            for line in self._path(hour).read_text(encoding="utf-8", errors="replace").splitlines():
                kind, ref, owes = _read(line)
                if ref is None:
                    continue
                if kind == _SHIPPED:
                    self._owing.pop(ref, None)
                elif owes:
                    self._owing[ref] = None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._hour = -1

    def ended(self, ref: AttemptRef, at_ms: int, *, owes_logs: bool) -> None:
        """The attempt is over; `owes_logs`: it wrote something that the master may lack."""
        if owes_logs:
            self._owing[ref] = None
        self._write(at_ms, f"{_ENDED} {ref.run_id} {ref.job_id} {ref.number}", owes=owes_logs)

    def shipped(self, ref: AttemptRef, at_ms: int) -> None:
        """The master has all that the attempt wrote."""
        if ref in self._owing:
            del self._owing[ref]
            self._write(at_ms, f"{_SHIPPED} {ref.run_id} {ref.job_id} {ref.number}", owes=False)

    def owing(self) -> list[AttemptRef]:
        """Attempts whose logs are still to be shipped."""
        return list(self._owing)

    def due(self, now_ms: int, keep_ms: int | None, *, most: int = SWEEP_MAX) -> Portion | None:
        """The next portion of folders that may go, those that ended first; None while there is none.

        Args:
            now_ms: the time.
            keep_ms: how long they stay after the end; None: not at all, room is needed.
            most: how many of them.
        """
        hours = self._hours()
        if keep_ms is None:
            return self._oldest(hours, now_ms, most)
        if not hours or (hours[0] + 1) * HOUR_MS > now_ms - keep_ms:
            return None
        return self._portion(hours[0], most)

    def _oldest(self, hours: list[int], now_ms: int, most: int) -> Portion | None:
        for hour in hours:
            portion = self._portion(hour, most)
            if hour >= now_ms // HOUR_MS and not portion.end:
                # Its page is still written on, and stays: what is on it by now has been seen.
                portion = portion._replace(end=self._path(hour).stat().st_size)
            if portion.refs or hour < now_ms // HOUR_MS:
                return portion
        return None

    def _portion(self, hour: int, most: int) -> Portion:
        refs: list[AttemptRef] = []
        with self._path(hour).open(encoding="utf-8", errors="replace") as file:
            file.seek(self._swept.get(hour, 0))
            # Not by iteration, during which a file does not tell where it is.
            while line := file.readline():
                kind, ref, _ = _read(line)
                if kind == _ENDED and ref is not None:
                    refs.append(ref)
                if len(refs) == most:
                    return Portion(hour, self._free(refs), file.tell())
        return Portion(hour, self._free(refs), 0)

    def removed(self, portion: Portion, now_ms: int) -> None:
        """These have no folder any more."""
        if portion.end:
            self._swept[portion.hour] = portion.end
            return
        self._swept.pop(portion.hour, None)
        # Whoever owes its logs stays for another day, on a younger page.
        for ref in self._owing:
            self.ended(ref, now_ms, owes_logs=True)
        self._path(portion.hour).unlink(missing_ok=True)

    def _free(self, refs: list[AttemptRef]) -> tuple[AttemptRef, ...]:
        return tuple(ref for ref in refs if ref not in self._owing)

    def _hours(self) -> list[int]:
        """The hours that have a file, oldest first."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def _path(self, hour: int) -> Path:
        return self._folder / str(hour)

    def _write(self, at_ms: int, line: str, *, owes: bool) -> None:
        hour = at_ms // HOUR_MS
        if hour != self._hour or self._file is None:
            self.close()
            # A page that a crash left with half a line gets a fresh one: a new line first.
            self._file = self._path(hour).open("a", encoding="utf-8", buffering=1)
            if self._file.tell():
                self._file.write("\n")
            self._hour = hour
        self._file.write(f"{line} {_OWES}\n" if owes else f"{line}\n")


def _read(line: str) -> tuple[str, AttemptRef | None, bool]:
    """(kind, attempt, owes); no attempt where the line is none that was written here."""
    words = line.split()
    if len(words) not in {4, 5} or words[0] not in {_ENDED, _SHIPPED} or not words[3].isdecimal():
        return "", None, False
    ref = AttemptRef(words[1], words[2], int(words[3]))
    return words[0], ref if may_have_folder(ref) else None, words[-1] == _OWES
