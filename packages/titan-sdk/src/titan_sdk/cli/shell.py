"""`titan shell`: the `titan>` prompt over the very commands of the shell one came from.

Decides how a typed line becomes the words of a command, what is suggested for an unfinished one, and
where the history lies. Runs nothing itself: each line goes through the same click group as `titan …`,
so a script and the prompt never differ; nothing that a command does, and no lost master, ends it.
With prompt-toolkit (the extra `titan-sdk[cli]`) the line is edited in colour with a menu of
suggestions, without it by readline; both ask the same `Suggestions`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from titan_sdk.cli.context import Settings, say, write
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient

PROMPT: Final = "titan> "
RULE: Final = "=" * 42
TITLE: Final = "    [INFO] TITAN DISTRIBUTED ORCHESTRATOR    "
COMMANDS_LINE: Final = "Commands: stats, json, submit <skill> <data>, dag <raw_dag>, exit"
MORE_LINE: Final = (
    "          run <file>, deploy <file> [port], stop <service_id>, shutdown <port>, help"
)
HISTORY_LINES: Final = 2_000
_LEAVE: Final = ("exit", "quit")
_RAW: Final = ("dag",)
"""Commands whose one argument is the rest of the line: a DAG string is full of what a shell splits."""
_KNOWN_S: Final = 2.0
"""Names of the cluster are suggested for so long before they are asked for again."""
_ASK_S: Final = 0.5
"""A master that does not answer in time must not hold up typing."""
_SUGGESTED: Final = 200
_FILES: Final = frozenset({"file", "files", "path", "paths"})
_IDS: Final = {
    "run": ("runs",),
    "id": ("services", "runs", "workers"),
    "service": ("services",),
    "name": ("files",),
    "job": ("runs",),
    "gate": ("gates",),
    "worker": ("workers",),
    "skill": ("skills",),
}
"""What a command's argument of that name can be."""


@click.command()
@click.pass_context
def shell(ctx: click.Context) -> None:
    """Open the `titan>` prompt: every command of `titan`, without `titan` before it.

    Tab completes commands, ids and files, the arrow keys find earlier lines, !COMMAND asks this machine's
    shell. Ctrl-D or exit leaves. `titan` alone on a terminal opens it too.

    \b
    Example:
      titan shell
    """  # noqa: D301 - click reads the backspace
    settings: Settings = ctx.find_object(Settings) or Settings(
        master=None, debug=False, color="auto"
    )
    if sys.stdin.isatty():
        write(banner(settings))
    converse(settings, _reader(Suggestions(settings)))


@click.command()
def exit() -> None:  # noqa: A001 - the document's word for it
    """Leave the `titan>` prompt. Elsewhere there is nothing to leave.

    \b
    Example:
      titan exit
    """  # noqa: D301 - click reads the backspace
    say("There is no prompt to leave; `titan shell` opens one.")


@click.command()
@click.argument("command", nargs=-1)
@click.pass_context
def help(ctx: click.Context, command: tuple[str, ...]) -> None:  # noqa: A001 - likewise
    """Say what the commands are, or how COMMAND is used.

    \b
    Examples:
      titan help
      titan help service scale
    """  # noqa: D301 - click reads the backspace
    root = ctx.find_root()
    found, path = root.command, root
    for word in command:
        if not isinstance(found, click.Group):
            raise click.UsageError(f"{path.command_path} has no commands below it.")
        name, below, _ = found.resolve_command(path, [word])
        if below is None:
            raise click.UsageError(f"No such command '{word}'.")
        path = click.Context(below, info_name=name, parent=path)
        found = below
    write(found.get_help(path))


def banner(settings: Settings) -> str:
    """What stands above the first prompt."""
    from titan_proto.errors import TitanError
    from titan_proto.io.address import Address
    from titan_sdk.client import TitanClient

    with TitanClient(settings.master, timeout=_ASK_S) as client:
        address = client.address
        host = "localhost" if address.host == "127.0.0.1" else address.host
        try:
            client.stats()
        except (TitanError, OSError) as error:
            return _screen(f"Not connected: {clean(str(error).splitlines()[0])}")
    return _screen(f"Connected to: {Address(host, address.port)}")


def _screen(connection: str) -> str:
    return f"{RULE}\n{TITLE}\n{RULE}\n{connection}\n{COMMANDS_LINE}\n{MORE_LINE}\n"


# -- a line ---------------------------------------------------------------------------------------


def words_of(line: str) -> list[str]:
    """The words of a line, split as a shell does; but a DAG string is taken as it stands.

    Raises ValueError with the reason: a quote that is not closed.
    """
    first, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if first in _RAW and rest and rest[0] not in "\"'-":
        return [first, rest]
    words = shlex.split(line)
    # Out of habit, or pasted from a document.
    return words[1:] if words[:1] == ["titan"] and len(words) > 1 else words


def converse(settings: Settings, lines: Iterator[str]) -> None:
    """Run line after line, whatever comes of them, until there are no more or one says so."""
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("!"):
            # The user's own shell, as `!` has always meant; nothing of the cluster gets into it.
            subprocess.run(text[1:], shell=True, check=False)  # noqa: S602
            continue
        try:
            words = words_of(text)
        except ValueError as error:
            say(f"error: {str(error).lower()}")
            continue
        if words[0] in _LEAVE:
            return
        if words[0] in {"?", "titan"}:
            words[0] = "help"
        if words == ["shell"]:
            say("This is the shell already; `exit` leaves it.")
            continue
        run_words(settings, words)


def run_words(settings: Settings, words: Sequence[str]) -> int:
    """One command, as `titan WORDS` would run it; its exit code."""
    from titan_sdk.cli import main

    try:
        main([*_options(settings), *words])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1
    return 0


def _options(settings: Settings) -> list[str]:
    """The options that stood before `shell` stand before each of its commands."""
    found = ["--color", settings.color]
    if settings.master is not None:
        found += ["--master", settings.master]
    return [*found, "--debug"] if settings.debug else found


# -- suggestions ----------------------------------------------------------------------------------


class Suggestions:
    """What an unfinished line may go on with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[float, list[str]]] = {}

    def of(self, line: str) -> list[str]:
        """Whole words for the last one of the line, which may be empty."""
        try:
            words = shlex.split(line)
        except ValueError:
            return []
        is_open = bool(words) and not line[-1:].isspace()
        word = words.pop() if is_open else ""
        return _beginning(word, self._candidates(words, word))

    def _candidates(self, words: list[str], word: str) -> Iterable[str]:
        from titan_sdk.cli import titan

        command: click.Command | None = titan
        context = click.Context(titan, info_name="titan")
        while words and isinstance(command, click.Group):
            command = command.get_command(context, words[0])
            words = words[1:]
        if isinstance(command, click.Group):
            names = command.list_commands(context)
            return [*names, *_LEAVE[:1]] if command is titan else names
        if command is None:
            return []
        if word.startswith("-"):
            return [
                name
                for one in command.params
                if isinstance(one, click.Option)
                for name in one.opts
                if name.startswith("--")
            ]
        return self._arguments(command, words, word)

    def _arguments(self, command: click.Command, words: list[str], word: str) -> Iterable[str]:
        arguments = [one for one in command.params if isinstance(one, click.Argument)]
        given = [one for one in words if not one.startswith("-")]
        if not arguments:
            return []
        argument = arguments[min(len(given), len(arguments) - 1)]
        if len(given) >= len(arguments) and argument.nargs == 1:
            return []
        name = str(argument.name)
        if name in _FILES:
            return _files(word)
        if isinstance(argument.type, click.Choice):
            return [str(one) for one in argument.type.choices]
        return [found for kind in _IDS.get(name, ()) for found in self._names(kind)]

    def _names(self, kind: str) -> list[str]:
        """Names of the live cluster; none while it does not answer."""
        from titan_proto.errors import TitanError
        from titan_sdk.client import TitanClient

        now = time.monotonic()
        asked_at, known = self._known.get(kind, (-_KNOWN_S, []))
        if now - asked_at < _KNOWN_S:
            return known
        try:
            with TitanClient(self._settings.master, timeout=_ASK_S) as client:
                known = [one for one in _ASK[kind](client) if clean(one) == one]
        except (TitanError, OSError):
            known = []
        self._known[kind] = (now, known[:_SUGGESTED])
        return self._known[kind][1]


def _runs(client: TitanClient) -> list[str]:
    found = [run.alias for run in client.runs()]
    ended = [run.alias for run in client.runs(ended=True, limit=20)]
    return [*found, *ended, "@last"]


def _services(client: TitanClient) -> list[str]:
    return [one.name for one in client.services()]


def _workers(client: TitanClient) -> list[str]:
    workers = client.stats().workers
    ports = [worker.port for worker in workers]
    return [
        str(one.port) if ports.count(one.port) == 1 else f"{one.host}:{one.port}" for one in workers
    ]


def _skills(client: TitanClient) -> list[str]:
    return sorted({skill for worker in client.stats().workers for skill in worker.skills})


def _gates(client: TitanClient) -> list[str]:
    return [f"{gate.run_alias}/{gate.job_id}" for gate in client.gates()]


def _perm_files(client: TitanClient) -> list[str]:
    return [one.name for one in client.files()]


_ASK: Final[dict[str, Callable[[TitanClient], list[str]]]] = {
    "runs": _runs,
    "services": _services,
    "workers": _workers,
    "skills": _skills,
    "gates": _gates,
    "files": _perm_files,
}


def _files(word: str) -> list[str]:
    """Files and folders that begin so; hidden ones only when a dot was typed."""
    folder, _, begin = word.rpartition("/")
    place = Path(folder or ("/" if word.startswith("/") else ".")).expanduser()
    try:
        entries = sorted(place.iterdir())
    except OSError:
        return []
    prefix = f"{folder}/" if "/" in word else ""
    return [
        f"{prefix}{entry.name}/" if entry.is_dir() else f"{prefix}{entry.name}"
        for entry in entries
        if entry.name.startswith(begin) and (begin or not entry.name.startswith("."))
    ][:_SUGGESTED]


def _beginning(word: str, candidates: Iterable[str]) -> list[str]:
    found = (one for one in dict.fromkeys(candidates) if one.startswith(word))
    return [one for one, _ in zip(found, range(_SUGGESTED), strict=False)]


# -- reading lines --------------------------------------------------------------------------------


def history_file() -> Path:
    """Where lines are kept from one shell to the next; only its owner may read it."""
    state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state) / "titan" / "shell_history"


def _reader(suggestions: Suggestions) -> Iterator[str]:
    """The lines that somebody types; from a pipe, its lines."""
    if not sys.stdin.isatty():
        return (line for line in sys.stdin)
    _make_history()
    try:
        import prompt_toolkit  # noqa: F401
    except ImportError:
        return _by_readline(suggestions)
    from titan_sdk.cli.prompt import typed_lines

    return typed_lines(PROMPT, suggestions.of, history_file())


def _make_history() -> None:
    """The file, for its owner alone: what was typed may hold what nobody else should read."""
    path = history_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def _by_readline(suggestions: Suggestions) -> Iterator[str]:
    import readline

    path = history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(" ")
    found: list[str] = []

    def complete(_word: str, number: int) -> str | None:
        if number == 0:
            found[:] = suggestions.of(readline.get_line_buffer()[: readline.get_endidx()])
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    try:
        while True:
            try:
                yield input(PROMPT)
            except EOFError:
                write("")
                return
            except KeyboardInterrupt:
                write("")
    finally:
        readline.set_completer(None)
        with contextlib.suppress(OSError):
            readline.write_history_file(path)
