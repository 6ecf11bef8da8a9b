"""`titan upload`, `titan files`, `titan download`: scripts and other files by name, at the master."""

from __future__ import annotations

import os
from pathlib import Path

import click

from titan_sdk.cli import render
from titan_sdk.cli.context import Settings, emit, output_option, say, write
from titan_sdk.cli.failures import USAGE, Failure
from titan_sdk.cli.look import look_of, print_table
from titan_sdk.cli.sanitize import clean


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--as", "name", help="The name there; slashes make folders. Default: the file's own.")
@output_option
@click.pass_obj
def upload(settings: Settings, files: tuple[str, ...], *, name: str | None, output: str) -> None:
    """Put each FILE into the master's perm_files, where runs find it by its name.

    What had that name stays as a version of it. The names are printed on stdout.

    \b
    Examples:
      titan upload hello.py
      titan upload build/report.jar --as tools/report.jar
    """  # noqa: D301 - click reads the backspace
    if name is not None and len(files) > 1:
        raise click.UsageError("--as goes with one FILE.")
    views = []
    with settings.client() as client:
        for file in files:
            view = client.upload(file, name=name)
            for notice in view.notices:
                say(clean(f"note: {notice}"))
            if output != "json":
                write(clean(view.name))
            views.append(view)
    if output == "json":
        emit("FileList", {"items": [render.file_json(view) for view in views]})


@click.command()
@click.argument("name", required=False)
@output_option
@click.pass_obj
def files(settings: Settings, name: str | None, *, output: str) -> None:
    """List what the master's perm_files hold; with NAME, what it stands for and stood for before.

    \b
    Examples:
      titan files
      titan files tools/report.jar
      titan files -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        views = client.files(name)
    if output == "json":
        if name is not None:
            emit("File", render.file_json(views[0]))
        else:
            emit("FileList", {"items": [render.file_json(view) for view in views]})
        return
    look = look_of(settings)
    if name is not None:
        print_table(render.versions_table(views[0]), look)
    elif views:
        print_table(render.files_table(views), look)
    else:
        say("perm_files are empty. Put something there:  titan upload hello.py")


@click.command()
@click.argument("name")
@click.option(
    "--version", metavar="HASH", default="", help="A version of it: its hash, or 4 of it."
)
@click.option("-o", "path", metavar="PATH", help="Where to. Default: the name's last part, here.")
@click.option("--force", is_flag=True, help="Overwrite what lies there.")
@click.pass_obj
def download(settings: Settings, name: str, *, version: str, path: str | None, force: bool) -> None:
    """Fetch NAME from the master's perm_files. Where it lies is printed on stdout.

    \b
    Examples:
      titan download hello.py
      titan download hello.py --version 3f2a91c0 -o hello.before.py
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        try:
            place = client.download(name, path, version=version, overwrite=force)
        except OSError as error:
            where = error.filename or path or Path(name).name
            raise Failure(f"{os.fspath(where)}: {error.strerror}", USAGE) from error
    write(str(place))
