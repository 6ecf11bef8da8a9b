"""Room on the disk that the journal lies on: may new work begin?

What ends must always be recorded, so what begins is let in only while there is room for its end, too.
A shell looks at the disk now and then; between two looks what has been begun is counted here, so that
no burst is let in on the strength of an old look. Volatile: the next process looks for itself. Written
and asked by ``admission`` and ``placement``, told by ``core``.
"""

from __future__ import annotations

from typing import Final

from titan_master.core.inputs import StorageChanged

RUN_ROOM_BYTES: Final = 65_536
"""Set aside for each run that is let in, beside its description (twice: log and database) ..."""
JOB_ROOM_BYTES: Final = 2_048
"""... and for each of its jobs: placed, started, ended, and what history keeps of it."""

_MIB: Final = 1024 * 1024


class Storage:
    """What is known of the disk. Before the first look it counts as endless."""

    def __init__(self) -> None:
        self._look: StorageChanged | None = None
        self._begun_bytes = 0

    def looked(self, look: StorageChanged) -> None:
        """Somebody has looked: what was begun before has been written by now, or will be soon."""
        self._look = look
        self._begun_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing at all may begin."""
        return self._look is not None and self._look.room_bytes <= 0

    def has_room(self, wanted_bytes: int) -> bool:
        """Whether something that will take so much may begin."""
        look = self._look
        return look is None or look.room_bytes - self._begun_bytes >= max(1, wanted_bytes)

    def begin(self, wanted_bytes: int) -> None:
        """Something that will take so much has begun."""
        self._begun_bytes += wanted_bytes

    def refusal(self, wanted_bytes: int) -> tuple[str, dict[str, str]]:
        """What to tell whoever wanted so much, in words and in numbers."""
        look = self._look or StorageChanged(room_bytes=0, free_bytes=0, wanted_bytes=0)
        if self.is_full:
            words = (
                f"the disk of the master's data folder is full: the {_mib(look.free_bytes)} that "
                "are free are kept for what has begun; new work is taken again, without a restart, "
                f"once {_mib(look.wanted_bytes)} are free"
            )
        else:
            words = (
                f"this needs up to {_mib(wanted_bytes)} on the disk of the master's data folder, "
                f"which has {_mib(look.room_bytes)} to give: make room there"
            )
        details = {
            "free_bytes": str(look.free_bytes),
            "wanted_bytes": str(max(look.wanted_bytes, wanted_bytes)),
        }
        return words, details


def room_of_run(jobs: int, spec_bytes: int) -> int:
    """How many bytes a run may come to take on the disk, from its submission to its end."""
    return RUN_ROOM_BYTES + jobs * JOB_ROOM_BYTES + 2 * spec_bytes


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
