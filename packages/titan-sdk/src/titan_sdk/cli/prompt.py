"""Typed lines by prompt-toolkit: history, and suggestions as a menu.

The only module that imports it; loading it takes a fifth of a second, so only the shell does. Decides
how lines are edited, not what is suggested.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from titan_sdk.cli.context import has_color


class _Words(Completer):
    """Whole words for the last one of the line."""

    def __init__(self, suggest: Callable[[str], list[str]]) -> None:
        self._suggest = suggest

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 - the library's signature
    ) -> Iterable[Completion]:
        """What the line before the cursor may go on with."""
        line = document.text_before_cursor
        typed = "" if line[-1:].isspace() or not line else line.split(" ")[-1]
        for word in self._suggest(line):
            yield Completion(shlex.quote(word), start_position=-len(typed), display=word)


def typed_lines(prompt: str, suggest: Callable[[str], list[str]], history: Path) -> Iterator[str]:
    """Line after line, until Ctrl-D; Ctrl-C forgets the one that was being typed."""
    kept: History = FileHistory(history) if history.exists() else InMemoryHistory()
    session: PromptSession[str] = PromptSession(
        # In a thread: a master may take its time, and typing goes on.
        completer=ThreadedCompleter(_Words(suggest)),
        complete_while_typing=False,
        history=kept,
        enable_history_search=True,
        mouse_support=False,
    )
    message: AnyFormattedText = [("bold" if has_color("auto", terminal=True) else "", prompt)]
    while True:
        try:
            yield session.prompt(message)
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
