"""Flipped bits and cut files: a master refuses them, or nothing of what it knows is another.

A day is written, half of it moved into the database, half of it still in the log. Then one bit of one
file is flipped, or a file is cut, and a master's store opens what is left. It is *detected* if opening
refuses it, or if a question about an ended run does; *harmless* if the state and every answer are
equal to the bit. Everything else is a failure.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.storage.day import Day
from tests.chaos.storage.results import Result
from titan_master.core.state import InvariantViolation, digest
from titan_master.store.base import JournalKeep, StoreError
from titan_master.store.sqlite import SqliteStore, connect

_TURNS = 60
STATE = "the state is another"
HISTORY = "an ended run is told otherwise"
_NAMES = ("t.sqlite", "t.sqlite-wal", "t.sqlite.mark")


class _Sample:
    """Files of a master that was killed in the middle of its day, and what they tell."""

    def __init__(self, root: Path, seed: int, keep: JournalKeep) -> None:
        self.folder = root / "sample"
        self.folder.mkdir(parents=True)
        made = root / "made"
        made.mkdir()
        store = SqliteStore(made / _NAMES[0], keep, connect)
        day = Day(store, store.open(), random.Random(seed), lambda _seq, _state: None)
        for turn in range(2 * _TURNS):
            day.turn()
            if turn in {_TURNS, _TURNS * 3 // 2}:
                # Once into the database, once left in the log.
                store.checkpoint()
                store.keep_up()
            if turn == _TURNS:
                store.tidy()
        for name in _NAMES:
            shutil.copy(made / name, self.folder / name)
        store.close()
        copied = root / "good"
        shutil.copytree(self.folder, copied)
        self.told = told(copied)


class Refused(Exception):
    """A question about an ended run was answered with an error."""


def told(folder: Path) -> tuple[object, list[object]]:
    """What a master knows from these files: of what is live, and of what has ended. Raises StoreError, Refused."""
    store = SqliteStore(folder / _NAMES[0], connect=connect)
    found = store.open()
    try:
        # Without the term: one that went back is damage, one that went on is as good a fence.
        state = (found.last_seq, digest(found.state))
        # As the engine asks: whatever breaks over a question is this question's refusal.
        with ThreadPoolExecutor(1) as reader:
            asked = reader.submit(_answers, store)
        if asked.exception() is not None:
            raise Refused from asked.exception()
        return state, asked.result()
    finally:
        store._let_go()


def _answers(store: SqliteStore) -> list[object]:
    page = store.runs("", 1_000)
    answers: list[object] = [page]
    for run in page.runs:
        answers += [store.run(run.run_id), store.resolve(run.alias), store.resolve(run.run_id)]
        jobs = store.jobs(run.run_id, "", 1_000)
        answers.append(jobs)
        for job in jobs.jobs if jobs is not None else ():
            answers.append(store.job(run.run_id, job.job_id))
            answers.append(store.attempts(run.run_id, job.job_id))
            answers.append(store.newest_with_job(job.job_id))
    return answers


def _try(sample: _Sample, folder: Path, what: str, result: Result) -> None:
    """Open what was damaged there, and count what came of it."""
    try:
        state, answers = told(folder)
    except (StoreError, InvariantViolation, Refused):
        result.count("detected")
        return
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # It ends all the same, but as if the program were broken and not the file.
        result.fail(f"{what}: not refused but broken over: {error!r}")
        return
    if (state, answers) == sample.told:
        result.count("harmless")
        return
    which = HISTORY if state == sample.told[0] else STATE
    result.lost += 1
    result.count(which)
    result.fail(f"{what}: opened, and {which}")


def flip(folder: Path, dice: random.Random) -> str:
    """One bit of one file; the larger a file the likelier, but the mark has its share, too."""
    sizes = [(folder / name).stat().st_size for name in _NAMES]
    (name,) = dice.choices(_NAMES, [*sizes[:2], sum(sizes) // 20])
    content = bytearray((folder / name).read_bytes())
    bit = dice.randrange(len(content) * 8)
    content[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(content)
    return f"bit {bit} of {name}"


def cut(folder: Path, dice: random.Random) -> str:
    """One file ends early."""
    name = dice.choice(_NAMES)
    content = (folder / name).read_bytes()
    length = dice.randrange(len(content))
    (folder / name).write_bytes(content[:length])
    return f"{name} cut to {length} of {len(content)} bytes"


def campaign(seed: int, *, flips: int, cuts: int) -> Result:
    """So many of each, each on a fresh copy."""
    result = Result(
        name="damage",
        what=f"{flips} flipped bits and {cuts} cuts in journal, checkpoint, history and mark: refused, or nothing of "
        "what the master knows is another",
        seed=seed,
    )
    with tempfile.TemporaryDirectory(prefix="damage-") as root:
        # With the whole journal beside its checkpoint, and with what came after the checkpoint alone.
        samples = (
            _Sample(Path(root) / "whole", seed, JournalKeep()),
            _Sample(Path(root) / "pruned", seed, JournalKeep(ms=0, bytes=0)),
        )
        for serial in range(flips + cuts):
            dice = random.Random(f"{seed} {serial}")
            sample = samples[serial % 2]
            folder = Path(root) / str(serial)
            shutil.copytree(sample.folder, folder)
            what = (flip if serial < flips else cut)(folder, dice)
            result.count("flips" if serial < flips else "cuts")
            _try(sample, folder, f"{sample.folder.parent.name} journal: {what}", result)
            shutil.rmtree(folder)
    return result.done()
