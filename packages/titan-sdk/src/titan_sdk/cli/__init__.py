"""The `titan` command: a group whose commands are loaded when they are asked for.

Decides nothing itself but which module holds which command, and how an error becomes a text and
an exit code (in `failures`). It must stay light: `titan --version` loads click and this file.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from titan_sdk.__about__ import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("cluster", "A whole cluster for a minute: run the sample pipeline, then clean up."),
    "up": ("cluster", "Start a cluster on this machine, with its data in ./.titan."),
    "down": ("cluster", "Stop the cluster that `titan up` started."),
    "run": ("runs", "Run a script or a pipeline."),
    "submit": ("runs", "Hand data to what a worker does with a skill of that name."),
    "dag": ("runs", "Run a raw DAG string."),
    "deploy": ("services", "Bring a script or a jar up as a service."),
    "validate": ("author", "Check pipeline files and say everything that is wrong with them."),
    "plan": ("plan", "What a pipeline would come to: in which order, where, and when."),
    "schema": ("author", "Print the JSON Schema of pipeline files, for editors."),
    "next": ("times", "When a schedule fires next."),
    "ps": ("look", "Active runs and services; with RUN, its jobs."),
    "watch": ("runs", "Watch a run go, job by job, until it ends."),
    "show": ("look", "All about one run, job, service or worker."),
    "explain": ("explain", "Why a job does not run."),
    "logs": ("logs", "What a job has printed."),
    "stats": ("look", "The cluster at a glance."),
    "json": ("look", "The same as `titan stats -o json`."),
    "open": ("opening", "Print a link that signs you in to the dashboard."),
    "gates": ("gates", "What waits for an approval."),
    "approve": ("gates", "Approve a gate: what waits for it begins."),
    "reject": ("gates", "Reject a gate: what waits for it is skipped."),
    "cancel": ("runs", "End a run: nothing new starts, what runs is stopped."),
    "retry": ("runs", "Run an ended run again: all of it, or what failed."),
    "dead": ("look", "Jobs that failed for good."),
    "stop": ("runs", "Stop a service, or a running job."),
    "service": ("services", "List services, scale one, or start it anew."),
    "schedule": ("schedules", "Have something run again and again."),
    "worker": ("workers", "List workers, or give one nothing new."),
    "shutdown": ("workers", "Have a worker finish what it runs, and leave."),
    "upload": ("files", "Put files into the master's perm_files."),
    "files": ("files", "What the master's perm_files hold; with NAME, its versions."),
    "download": ("files", "Fetch a file of the master's perm_files, or a version of it."),
    "shell": ("shell", "Open the titan> prompt; `titan` alone on a terminal does so too."),
    "help": ("shell", "Say what the commands are, or how one is used."),
    "exit": ("shell", "Leave the titan> prompt."),
}
"""Module and one line of help, so that listing the commands loads none of them."""

PLUGIN_GROUPS: Final = ("master",)
"""`titan master start` is the master's own command, where that package is installed."""
_PLUGINS: Final = "titan.commands"


class LazyGroup(click.Group):
    """Knows its commands' names and one-line helps; loads a command's module when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(  # click's signature
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The command itself."""
        if cmd_name in PLUGIN_GROUPS:
            return PluginGroup(
                cmd_name, help=f"Commands of titan-{cmd_name}, where it is installed."
            )
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"titan_sdk.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error."""
        name = args[0] if args else ""
        if name and name not in COMMANDS and name not in PLUGIN_GROUPS and not name.startswith("-"):
            from titan_sdk.keys import nearest

            meant = nearest(name, COMMANDS)
            hint = f" Did you mean '{meant}'?" if meant else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """The list, without loading what is listed."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


class PluginGroup(click.Group):
    """Commands that another installed package brings; looked up only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Its own, and the names that are installed."""
        return [*self.commands, *sorted(self._points())]

    def get_command(  # click's signature
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """One of its own, or the command of the other package."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        point = self._points().get(cmd_name)
        if point is None:
            return None
        command: click.Command = point.load()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; where there is nothing at all, say why."""
        if (not args or args[0] not in self.commands) and not self._points():
            ctx.fail(f"titan-{self.name} is not installed in this Python ({sys.executable}).")
        return super().resolve_command(ctx, args)

    def _points(self) -> dict[str, Any]:
        from importlib.metadata import entry_points

        prefix = f"{self.name}."
        return {
            point.name.removeprefix(prefix): point
            for point in entry_points(group=_PLUGINS)
            if point.name.startswith(prefix)
        }


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="titan")
@click.option(
    "--master",
    metavar="HOST:PORT",
    help="The master to talk to. Default: $TITAN_MASTER, the nearest .titan/, then 127.0.0.1:9090.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto minds NO_COLOR and FORCE_COLOR.",
)
@click.pass_context
def titan(ctx: click.Context, master: str | None, *, debug: bool, color: str) -> None:
    """Titan runs jobs, pipelines and services on one machine or many.

    \b
    Start here:
      titan demo                    see it work; leaves nothing behind
      titan up -d                   start a cluster on this machine
      titan run hello.py --follow   run a script and watch it
      titan run pipeline.yaml       run a pipeline
    """  # noqa: D301 - click reads the backspace
    from titan_sdk.cli.context import Settings

    ctx.obj = Settings(master=master, debug=debug, color=color)
    if ctx.invoked_subcommand is not None:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        from titan_sdk.cli.shell import shell

        ctx.invoke(shell)
    else:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None, prog_name: str = "titan") -> None:
    """What the `titan` program calls: run a command, turn an error into a text and an exit code."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = titan.main(given, prog_name=prog_name, standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  # outermost
        from titan_sdk.cli.failures import report

        sys.exit(report(error, given))
    sys.exit(code if isinstance(code, int) else 0)
