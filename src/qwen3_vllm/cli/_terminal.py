"""What the commands have in common: consoles on which any text is safe, exit statuses, errors in one line."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import rich.console
import typer
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from qwen3_vllm.errors import ConfigurationError, InputError, LaunchError, Qwen3VLLMError

EXIT_FAILED = 1  # or not everything was done
EXIT_REFUSED = 2  # before anything was done; typer's own status for wrong usage too
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # what a shell shows for a program that SIGPIPE ended
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
# C0 (without tab and newline), DEL, C1, what turns the direction of writing, Unicode's own line ends, and
# lone surrogates, which stand for bytes that are not UTF-8.
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text that can do nothing to a terminal: colours removed, other control characters escaped."""
    if text.isprintable():
        return text
    return _CONTROLS.sub(_escaped, _COLOURS.sub("", text.replace("\r\n", "\n")))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Console(rich.console.Console):
    """Prints text as it is: no markup, no emoji codes, and nothing in it that controls the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


# A pipe has no width; a table must not be broken for that.
out = Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 150)
err = Console(stderr=True, soft_wrap=True)


def print_line(text: str) -> None:
    """Print to standard output, on one line however long it is."""
    print(printable(text))


def print_json(content: Any) -> None:
    """Print JSON with what would control a terminal escaped: the same to whatever parses it."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def warn(message: object) -> None:
    err.print(f"warning: {message}", style="yellow")


def fail(message: object, status: int) -> NoReturn:
    """End the command with a message."""
    err.print(f"error: {message}", style="red")
    raise typer.Exit(status)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the command with a message, and 2 for what was refused, 1 for what failed."""
    try:
        yield
    except (ConfigurationError, InputError, LaunchError) as error:
        fail(error, EXIT_REFUSED)
    except Qwen3VLLMError as error:
        fail(error, EXIT_FAILED)
