"""Where the server is: what the user said, else what a server wrote into its data directory, else the default.

A server that is ready writes ``kalam.json`` there, so that ``kalam sql`` finds it beside ``kalam serve`` on any port.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from kalam.cli.failure import CommandFailed

DEFAULT_DATA_DIR: Final = Path("kalam-data")
DEFAULT_URLS: Final = {"http_url": "http://127.0.0.1:8080", "nats_url": "nats://127.0.0.1:4222"}
ANNOUNCEMENT: Final = "kalam.json"
HOW_TO_START: Final = (
    "Is a server running? Start one with `kalam serve`, or say where it is with {flag} or with --data-dir."
)


def find_url(kind: str, given: str | None, data_dir: Path | None) -> str:
    """The ``http_url`` or ``nats_url`` of the server: ``given``, or what the server in ``data_dir`` announced."""
    if given:
        return given
    announced = read_announcement(data_dir or DEFAULT_DATA_DIR)
    if announced is None and data_dir is not None:
        raise CommandFailed(f"error: no server has announced itself in {data_dir}: there is no {ANNOUNCEMENT}")
    url = (announced or {}).get(kind)
    return url if isinstance(url, str) else DEFAULT_URLS[kind]


def read_announcement(data_dir: Path) -> dict[str, Any] | None:
    """What the server of this data directory announced, or None if none did."""
    try:
        announced = json.loads((data_dir / ANNOUNCEMENT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise CommandFailed(f"error: cannot read {data_dir / ANNOUNCEMENT}: {exc}") from exc
    return announced if isinstance(announced, dict) else None
