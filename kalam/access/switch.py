"""Whether users are asked who they are: what a start refuses, whom the first makes, and what is said each minute."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import structlog

from kalam.access.first_admin import make_first_administrator
from kalam.access.opened import Access
from kalam.errors import InvalidOption
from kalam.settings import Settings
from kalam.start_checks import exposed

WARNED_S: Final = 60.0

log = structlog.get_logger(__name__)


async def begin_access(settings: Settings, access: Access) -> None:
    """Make the first administrator where users are asked for; raises InvalidOption where it is not said whether."""
    if settings.auth == "on":
        await make_first_administrator(access.book, access.audit, access.passwords, os.environ, _tell)
    elif access.book.users and "auth" not in settings.model_fields_set:
        raise InvalidOption(
            "this data directory has users, and it is not said whether they are asked for",
            hint="--auth on asks; --auth off lets anybody do anything",
        )


async def keep_warning(settings: Settings, access: Access) -> None:
    """Say each minute that nobody is asked where that is dangerous, until cancelled."""
    while True:
        if settings.auth == "off" and access.book.users:
            log.warning("authentication is off: no login is asked for, and neither grants nor policies count")
        await asyncio.sleep(WARNED_S)
        for name, host in exposed(settings).items():  # at the start it is told among the doubts
            log.warning("other machines can connect, and there is no authentication", setting=name, host=host)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - what a person reads, once
