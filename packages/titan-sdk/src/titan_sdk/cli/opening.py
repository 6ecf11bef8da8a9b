"""`titan open`: a link that signs in to the dashboard."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlencode

import click

from titan_proto.errors import NotFound
from titan_sdk.cli.context import Settings, emit, output_option, say, write
from titan_sdk.cli.look import find_job, suggesting_runs

_PLACE = "http://localhost:5000"


@click.command("open")
@click.argument("id", required=False)
@click.option(
    "--dashboard",
    metavar="URL",
    help="Where the dashboard is. Default: where `titan up` started it, else http://localhost:5000.",
)
@output_option
@click.pass_obj
def open(  # noqa: A001 - what the user types
    settings: Settings,
    id: str | None,  # noqa: A002 - what the user types
    *,
    dashboard: str | None,
    output: str,
) -> None:
    """Print a link that opens the dashboard, at a run or a job if ID names one.

    Who opens it is signed in as whose token this is. It is good once, and for ten minutes.

    \b
    Examples:
      titan open
      titan open nightly-7
      titan open nightly-7/LOAD
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        path = "/"
        if id is not None and "/" in id:
            job = find_job(client, id)
            path = f"/runs/{job.run_id}/jobs/{job.job_id}"
        elif id is not None:
            try:
                path = f"/runs/{client.view(id).run_id}"
            except NotFound:
                with suggesting_runs(client, id):
                    job = find_job(client, id)
                path = f"/runs/{job.run_id}/jobs/{job.job_id}"
        ticket = client.ticket()
    url = link(dashboard or _started() or _PLACE, ticket.ticket, path)
    if output == "json":
        emit("Link", {"url": url, "goodForSeconds": ticket.good_for_ms / 1000})
        return
    write(url)
    say(f"Good once, for {ticket.good_for_ms // 60_000} minutes.")


def link(dashboard: str, ticket: str, path: str = "/") -> str:
    """What to open so that it signs in and shows that page."""
    asked = {"t": ticket, **({"to": path} if path != "/" else {})}
    return f"{dashboard.rstrip('/')}/open?{urlencode(asked, quote_via=quote, safe='/')}"


def _started() -> str:
    """The dashboard that `titan up` started here or above."""
    from titan_sdk.local import LocalCluster

    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / ".titan").is_dir():
            return LocalCluster(folder / ".titan").dashboard_url()
    return ""
