"""`titan-dashboard`: serve the pages with waitress, on loopback."""

from __future__ import annotations

import signal
import socket
import sys

import click
from waitress.server import create_server

from titan_dashboard import __version__, create_app
from titan_dashboard.config import DEFAULT_PORT, THREADS, DashboardConfig
from titan_proto.io.address import BadAddress, parse_address


def _is_address(
    context: click.Context, parameter: click.Parameter, given: str | None
) -> str | None:
    """Refuse what is no address now, not on every page later."""
    del context, parameter
    try:
        return given and str(parse_address(given))
    except BadAddress as error:
        raise click.BadParameter(str(error)) from error


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0: any.",
)
@click.option(
    "--master",
    metavar="HOST:PORT",
    callback=_is_address,
    help="The master; found as by `titan` if not given.",
)
@click.version_option(__version__, prog_name="titan-dashboard")
def main(port: int, master: str | None) -> None:
    """Serve Titan's dashboard on http://127.0.0.1:PORT.

    \b
    Example:
      titan-dashboard --port 5000
    """  # noqa: D301 - click reads the backspace
    app = create_app(DashboardConfig.from_environment(master))
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        click.echo(f"error: cannot listen on 127.0.0.1:{port}: {error.strerror}", err=True)
        click.echo("  try:  titan-dashboard --port 0", err=True)
        sys.exit(75)
    server = create_server(
        app,
        sockets=[listening],
        threads=THREADS,
        # Only with it does a stream hear at once that its browser has gone.
        channel_request_lookahead=1,
        # What a browser does not read is not kept for it without end.
        outbuf_high_watermark=1024 * 1024,
        clear_untrusted_proxy_headers=True,
    )
    bound = listening.getsockname()[1]
    click.echo(f"titan-dashboard ready on http://127.0.0.1:{bound}", err=True)
    signal.signal(signal.SIGTERM, _end)
    try:
        server.run()  # returns when a signal has raised SystemExit or KeyboardInterrupt in it
    finally:
        server.close()


def _end(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(0)
