"""What a command tells beside its results, and whether it does so in colour: ``--quiet``, ``--no-color``, ``NO_COLOR``.

Both are said before or after the command's name, so they belong to the process. Results and errors are never left out.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Final, TextIO, get_type_hints

import typer

NO_COLOR: Final = "NO_COLOR"
"""The variable of https://no-color.org, which rich and prompt_toolkit know too."""
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell nothing but results and errors.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Use no colours (also NO_COLOR).")]
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def choose(quiet: bool, no_color: bool) -> None:
    """Take note of flags that were given; those that were not change nothing."""
    if quiet:
        _QUIET.set(True)
    if no_color:
        os.environ[NO_COLOR] = "1"  # for the libraries, and the processes that a command starts


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _QUIET.get()


def tell(text: str) -> None:
    """Say something on stderr that is neither result nor error."""
    if not is_quiet():
        typer.echo(text, err=True)


def is_styled(stream: TextIO) -> bool:
    """Whether colours may be written to a stream."""
    return stream.isatty() and not os.environ.get(NO_COLOR)


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with ``--quiet`` and ``--no-color`` besides its own flags."""

    @functools.wraps(command)
    def told(*args: Any, quiet: bool, no_color: bool, **given: Any) -> None:
        choose(quiet, no_color)
        command(*args, **given)

    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    own = [each.replace(annotation=hints[name]) for name, each in signature.parameters.items()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("quiet", keyword, default=False, annotation=Quiet),
        inspect.Parameter("no_color", keyword, default=False, annotation=NoColor),
    ]
    told.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # as inspect reads it
    told.__annotations__ = {**hints, "quiet": Quiet, "no_color": NoColor}
    return told
