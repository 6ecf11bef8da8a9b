"""Readable traces: each ``*.txt`` here is a story, executed.

Lines that begin with ``>`` are one turn: ``> [+MS] input; input``. What is indented below is what the
core answered: ``=`` a record, ``!`` an effect. ``pytest --rewrite`` writes the present answers into
the files; the difference is for a reviewer to read.

Attempts are written ``job`` (its first) or ``job.2``.
"""

import pathlib
import shlex

import msgspec
import pytest

from titan_proto.ids import AttemptRef
from titan_proto.messages import AttemptOrder, AttemptReport, HeldAttempt, StopAttempts
from titan_proto.states import ExitReason
from titan_worker.core.effects import Send
from titan_worker.core.inputs import (
    Exited,
    FromMaster,
    LinkDown,
    ProbeAnswered,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    UsageSampled,
    WorkspaceFailed,
    WorkspaceReady,
)

HERE = pathlib.Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES, ids=[story.stem for story in STORIES])
def test_scenario(story, new_world, request):
    text = story.read_text(encoding="utf-8")
    told = Teller(new_world).tell(text)
    if request.config.getoption("--rewrite", default=False):
        story.write_text(told, encoding="utf-8")
        return
    assert told == text, "read the difference; if it is right: pytest --rewrite"


def test_there_are_stories():
    assert len(STORIES) >= 8


class Teller:
    """Executes a story and writes it down again with the answers it got."""

    def __init__(self, new_world):
        self.new_world = new_world
        self.world = new_world(slots=2)
        self.begun_ms = self.world.now_ms

    def tell(self, text):
        lines = []
        for line in text.splitlines():
            if line.startswith("slots "):
                self.world = self.new_world(slots=int(line.split()[1]))
                lines.append(line)
            elif line.startswith(">"):
                lines += [line, *self.answer(line[1:].strip())]
            elif not line.startswith("    "):
                lines.append(line)
        return "\n".join(lines) + "\n"

    def answer(self, turn):
        after_ms = 0
        if turn.startswith("+"):
            first, _, turn = turn.partition(" ")
            after_ms = int(first)
        if turn == "crash":
            self.world.crash()
            return []
        items = [self.read(words) for words in turn.split(";") if words.strip()]
        done = self.world.turn(*items, after_ms=after_ms)
        answers = [f"    = {self.show(record)}" for record in done.records]
        return answers + [f"    ! {self.show(effect)}" for effect in done.effects]

    # -- reading ----------------------------------------------------------------------------------
    def ref(self, text):
        job, _, number = text.partition(".")
        return self.world.ref(job, int(number or 1))

    def read(self, text):
        verb, *words = shlex.split(text)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        names = [word for word in words if "=" not in word]
        return getattr(self, f"read_{verb.replace('-', '_')}")(names, options)

    def read_started(self, names, options):
        return Started(boot_id="boot")

    def read_link_up(self, names, options):
        return self.world.link_up(
            cluster=options.get("cluster", "c1"), term=int(options.get("term", 1))
        )

    def read_link_down(self, names, options):
        return LinkDown()

    def read_joined(self, names, options):
        def refs(key):
            return [self.ref(name) for name in options.get(key, "").split(",") if name]

        return self.world.joined(
            term=int(options.get("term", 1)), stop=refs("stop"), forget=refs("forget")
        )

    def read_order(self, names, options):
        service = options.get("service")
        orders = [
            self.world.order(
                self.ref(name).job_id,
                self.ref(name).number,
                service=None if service is None else int(service),
                grace_ms=int(options.get("grace", 10_000)),
                timeout_ms=int(options.get("timeout", 0)),
                exclusive="exclusive" in options,
            )
            for name in names
        ]
        return self.world.start(*orders, term=int(options.get("term", 1)))

    def read_stop(self, names, options):
        return FromMaster(
            message=StopAttempts(
                term=int(options.get("term", 1)),
                refs=tuple(self.ref(name) for name in names),
                reason=ExitReason(options.get("reason", "CANCELLED")),
            )
        )

    def read_acks(self, names, options):
        return self.world.acks(*names)

    def read_ready(self, names, options):
        return WorkspaceReady(ref=self.ref(names[0]))

    def read_no_workspace(self, names, options):
        return WorkspaceFailed(ref=self.ref(names[0]), message=options["message"])

    def read_spawned(self, names, options):
        return Spawned(
            ref=self.ref(names[0]),
            pid=int(options.get("pid", 100)),
            start_ticks=7,
            port=int(options.get("port", 0)),
        )

    def read_no_process(self, names, options):
        return SpawnFailed(ref=self.ref(names[0]), message=options["message"])

    def read_heard(self, names, options):
        return self.world.heard(int(options["beat"]))

    def read_exited(self, names, options):
        return Exited(
            ref=self.ref(names[0]),
            exit_code=int(options.get("code", 0)),
            signal=int(options.get("signal", 0)),
            stdout_bytes=int(options.get("stdout", 0)),
            stderr_bytes=int(options.get("stderr", 0)),
            lease_ended="lease_ended" in options,
        )

    def read_answers(self, names, options):
        return ProbeAnswered(ref=self.ref(names[0]))

    def read_usage(self, names, options):
        cpu = int(options["cpu"])
        return UsageSampled(cpu_permille=cpu, memory_used_bytes=1, memory_total_bytes=2)

    def read_shutdown(self, names, options):
        return StopRequested()

    # -- writing ----------------------------------------------------------------------------------
    def show(self, thing):
        """One line; fields that have their default are left out, times count from the start."""
        if isinstance(thing, Send):
            return f"Send {self.show(thing.message)}"
        if isinstance(thing, AttemptRef):
            return thing.job_id if thing.number == 1 else f"{thing.job_id}.{thing.number}"
        if isinstance(thing, AttemptOrder):
            return self.show(thing.ref)
        if isinstance(thing, HeldAttempt):
            return f"{self.show(thing.ref)}:{thing.state}"
        if isinstance(thing, tuple):
            return "[" + ", ".join(self.show(item) for item in thing) + "]"
        if isinstance(thing, AttemptReport):
            return f"({' '.join(self.fields(thing))})"
        if isinstance(thing, msgspec.Struct):
            return " ".join([type(thing).__name__, *self.fields(thing)])
        return repr(thing) if isinstance(thing, str) and " " in thing else str(thing)

    def fields(self, struct):
        shown = []
        for field in msgspec.structs.fields(struct):
            value = getattr(struct, field.name)
            if value in (field.default, {}):
                continue
            if field.name.endswith("at_ms"):
                value -= self.begun_ms
            # What an attempt is called is its whole line's subject; naming the field adds nothing.
            bare = isinstance(value, (AttemptRef, AttemptOrder, AttemptReport))
            shown.append(self.show(value) if bare else f"{field.name}={self.show(value)}")
        return shown
