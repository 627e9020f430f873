"""How a command says that it failed: text for stderr, and the exit status."""

from __future__ import annotations

from typing import Final

from kalam.urls import redacted_text

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""As a shell has it for what SIGINT ended."""
HOW_TO_START: Final = (
    "Is a server running? Start one with `kalam serve`, or say where it is with --url or with --data-dir."
)


class CommandFailed(Exception):
    """The command could not do what was asked; ``text`` says why and what to do, and shows no password of a URL."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        self.text = redacted_text(text)
        super().__init__(self.text)
        self.status = status


class WrongUsage(CommandFailed):
    """The command was called in a way that it does not understand."""

    def __init__(self, text: str) -> None:
        super().__init__(f"error: {text}", USAGE)
