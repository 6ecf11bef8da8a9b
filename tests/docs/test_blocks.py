"""Every block of code in the documents does what it says: it is run, or shown to be run elsewhere.

How a fenced block is treated follows from its info string:

* ``console``: the lines after ``$ `` run in bash, one session's worth of files and variables per
  document, in order; lines without ``$ `` that follow a command are its exact output.
* ``console terminal="TEXT"``: started in the background until the document ends; the next block
  waits for TEXT on its output.
* ``console by=FILE``: run by that file instead, which must hold the block's commands.
* ``python``: run as a script in the session's folder.  ``yaml``: accepted by ``titan validate``.
* ``text`` is a picture or an output and nothing to run; any other language is an error here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.ports import documented_ports

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "```" in path.read_text(encoding="utf-8")
)
COMMAND_S = 240
READY_S = 30


class Block(NamedTuple):
    """A fenced block: its language, the attributes of its info string, its text."""

    line: int
    language: str
    attributes: dict[str, str]
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, in order."""
    for match in re.finditer(r"^```(\S*)([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        pairs = [word.partition("=") for word in shlex.split(match[2])]
        line = text.count("\n", 0, match.start()) + 1
        yield Block(line, match[1], {key: value for key, _, value in pairs}, match[3])


class Terminal:
    """A command that goes on while the rest of the document is followed."""

    def __init__(self, command: str, ready: str, env: dict[str, str], cwd: Path) -> None:
        self._found = threading.Event()
        self._ready = ready
        self.output: list[str] = []
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line)
                if self._ready in line:
                    self._found.set()
        self._found.set()

    def wait_ready(self) -> None:
        """Wait for the text that the block's info string names."""
        self._found.wait(READY_S)
        assert any(self._ready in line for line in self.output), "".join(self.output)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(READY_S)
        self._reader.join(READY_S)


class Session:
    """One document's folder, variables and background terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"
        self.env["XDG_STATE_HOME"] = str(folder.parent / "state")
        self.env["NO_COLOR"] = "1"
        self.env["PYTHONUTF8"] = "1"
        self.state = folder.parent / "session.env"
        self.terminals: list[Terminal] = []

    def console(self, block: Block) -> None:
        """Run a block's commands in order, in bash; compare what they print where it is shown."""
        for command, expected in _commands(block.text):
            if "terminal" in block.attributes:
                terminal = Terminal(
                    self._with_state(command), block.attributes["terminal"], self.env, self.folder
                )
                self.terminals.append(terminal)
                terminal.wait_ready()
                continue
            done = subprocess.run(
                ["bash", "-c", self._script(command)],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
            assert done.returncode == 0, f"line {block.line}: {command}\n{done.stdout}{done.stderr}"
            if expected:
                assert done.stdout.rstrip() == expected.rstrip(), f"line {block.line}: {command}"

    def _with_state(self, command: str) -> str:
        path = self._read_path()
        return f"env PATH={shlex.quote(path)} {command}" if path else command

    def _read_path(self) -> str:
        if not self.state.is_file():
            return ""
        found = re.search(r"^declare -x PATH=\"(.*)\"$", self.state.read_text(), re.MULTILINE)
        return found[1] if found else ""

    def _script(self, command: str) -> str:
        quoted = shlex.quote(str(self.state))
        return f"[ -f {quoted} ] && . {quoted}\n{command}\nrc=$?\nexport -p > {quoted}\nexit $rc"

    def python(self, block: Block) -> None:
        """Run a block as a script."""
        script = self.folder / f"block_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        self.console(Block(block.line, "console", {}, f"$ python {script.name}\n"))

    def yaml(self, block: Block) -> None:
        """Have a pipeline validated, beside the example whose scripts it names."""
        place = self.folder / "examples" / "daily_etl" / f"block_{block.line}.yaml"
        place.write_text(block.text, encoding="utf-8")
        self.console(Block(block.line, "console", {}, f"$ titan validate {place}\n"))

    def close(self) -> None:
        """End the background terminals, newest first, and what a document that failed has left up."""
        for terminal in reversed(self.terminals):
            terminal.stop()
        if (self.folder / ".titan" / "up.json").exists():
            subprocess.run(
                [sys.executable, "-m", "titan_sdk", "down", "--data", str(self.folder / ".titan")],
                env=self.env,
                cwd=self.folder.parent,
                timeout=COMMAND_S,
                check=True,
            )


def _commands(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def _check_elsewhere(block: Block) -> None:
    place = ROOT / block.attributes["by"]
    text = place.read_text(encoding="utf-8")
    for command, _ in _commands(block.text):
        words = command.split()
        assert all(word in text for word in words), f"{place.name} does not run {command!r}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_does_what_it_says(document: Path, tmp_path: Path) -> None:
    """A reader who types what the document shows gets what the document says."""
    folder = tmp_path / "titan"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for name in ("risky_script.py", "healer.py"):
        shutil.copy2(ROOT / "examples" / "agent_loop" / name, folder / name)
    session = Session(folder)
    # What it starts has the names and ports that it shows, and a machine has one of each.
    with documented_ports():
        try:
            for block in blocks(document.read_text(encoding="utf-8")):
                if "by" in block.attributes:
                    _check_elsewhere(block)
                elif block.language == "console":
                    session.console(block)
                elif block.language == "python":
                    session.python(block)
                elif block.language == "yaml":
                    session.yaml(block)
                else:
                    assert block.language == "text", f"line {block.line}: {block.language!r}"
        finally:
            session.close()
