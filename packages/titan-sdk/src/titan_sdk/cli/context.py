"""What every command shares: the global options, the client, the output's format.

Decides where data goes (stdout) and where everything else goes (stderr). Loads the client only
when a command asks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient

API_VERSION: Final = "titan/v1"
ENDED_SHOWN: Final = 50
"""Of what has ended, unless more is asked for."""
_FORMATS: Final = ("table", "json")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Settings:
    """The options that stand before a command."""

    def __init__(self, *, master: str | None, debug: bool, color: str) -> None:
        self.master = master
        self.debug = debug
        self.color = color

    @contextlib.contextmanager
    def client(self) -> Iterator[TitanClient]:
        """A client for the time of a command."""
        from titan_sdk.client import TitanClient

        with TitanClient(self.master) as client:
            yield client


class _Format(click.ParamType[str]):
    """`table` or `json`, with the nearest one in the error."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        del param, ctx
        return "[table|json]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in _FORMATS:
            return str(value)
        from titan_sdk.keys import nearest

        meant = nearest(str(value), _FORMATS)
        hint = f" Did you mean '{meant}'?" if meant else ""
        return self.fail(f"'{value}' is no format: table or json.{hint}", param, ctx)


class Names(click.ParamType[str]):
    """`KEY=VALUE`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The pair as it was written; refused without a name or an equals sign."""
        key, equals, _ = str(value).partition("=")
        if not key or not equals:
            self.fail(f"'{value}' is not KEY=VALUE.", param, ctx)
        return str(value)


class Duration(click.ParamType[float]):
    """`90s`, `5m`, `1h30m`, or seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        from titan_sdk.keys import BadValue, duration_ms

        if isinstance(value, float):
            return value
        try:
            return duration_ms(value) / 1000
        except BadValue as error:
            return self.fail(f"{error.message}: {error.hint}.", param, ctx)


class Moment(click.ParamType[str]):
    """A moment to come: a date and a time, or a time of today, in the local zone unless one is said.

    Args:
        past: whether it may have passed.
    """

    name = "time"

    def __init__(self, *, past: bool = False) -> None:
        self._past = past

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """RFC 3339, with the zone."""
        import datetime

        text = str(value).strip()
        now = datetime.datetime.now().astimezone()
        at: datetime.datetime | None = None
        with contextlib.suppress(ValueError):
            # Python 3.10 does not read the Z of RFC 3339.
            at = datetime.datetime.fromisoformat(
                text[:-1] + "+00:00" if text[-1:] in {"Z", "z"} else text
            ).astimezone()
        if at is None:
            with contextlib.suppress(ValueError):
                clock = datetime.time.fromisoformat(text)
                at = datetime.datetime.combine(now.date(), clock).astimezone()
        if at is None:
            return self.fail(
                f"'{value}' is no point in time: write 2026-12-01T08:30:00Z, '2026-12-01 08:30' "
                "(of this machine's zone), or 08:30 for today.",
                param,
                ctx,
            )
        if at <= now and not self._past:
            return self.fail(
                f"'{value}' has passed: it is {now.isoformat(timespec='seconds')}.", param, ctx
            )
        return at.isoformat()


def output_option(function: FunctionT) -> FunctionT:
    """Add `-o`, which $TITAN_FORMAT sets too."""
    return click.option(
        "-o",
        "--output",
        type=_Format(),
        envvar="TITAN_FORMAT",
        default="table",
        help="table (for people) or json (for programs). [env: TITAN_FORMAT]",
    )(function)


def limit_option(told: str) -> Callable[[FunctionT], FunctionT]:
    """Add `-n`: how much of a list that grows for ever is shown, as `told`."""
    return click.option(
        "-n",
        "--limit",
        type=click.IntRange(min=1),
        default=ENDED_SHOWN,
        show_default=True,
        help=told,
    )


def emit(kind: str, body: Mapping[str, Any]) -> None:
    """One JSON value on stdout."""
    write(json.dumps({"apiVersion": API_VERSION, "kind": kind, **body}, ensure_ascii=False))


def emit_line(kind: str, body: Mapping[str, Any]) -> None:
    """One JSON value of a stream, out at once."""
    emit(kind, body)
    sys.stdout.flush()


def write(text: str) -> None:
    """Data, on stdout. What its encoding lacks is replaced, not refused."""
    with reader_may_leave():
        click.echo(text.encode(stdout_encoding(), "replace").decode(stdout_encoding()))


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """`titan logs … | head` is no error: when the reader has seen enough, the command is done."""
    try:
        yield
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(0) from None


def say(text: str) -> None:
    """Everything that is not data, on stderr."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding), err=True)


def stdout_encoding() -> str:
    """How stdout writes text."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def stdout_is_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def is_unicode(encoding: str | None = None) -> bool:
    """Whether symbols beyond ASCII can be shown."""
    return (encoding or stdout_encoding()).lower().replace("-", "").startswith("utf")


def has_color(choice: str, *, terminal: bool, environ: Mapping[str, str] | None = None) -> bool:
    """Whether to colour: the option, then NO_COLOR and TERM, then FORCE_COLOR, then the terminal."""
    env = os.environ if environ is None else environ
    if choice != "auto":
        return choice == "always"
    if env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    if env.get("FORCE_COLOR") or env.get("CLICOLOR_FORCE", "0") not in {"", "0"}:
        return True
    return terminal


def has_animation() -> bool:
    """Whether progress may be redrawn in place."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM") != "dumb"
        and not os.environ.get("TITAN_NO_ANIMATION")
    )


params_option: Final = click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    type=Names(),
    metavar="NAME=VALUE",
    help="A value of a param that the pipeline defines; may be repeated.",
)


def values_of(params: tuple[str, ...]) -> dict[str, str]:
    """What was given with -p, by name."""
    values: dict[str, str] = {}
    for pair in params:
        name, _, value = pair.partition("=")
        if name in values:
            raise click.UsageError(f"-p {name} is given twice.")
        values[name] = value
    return values
