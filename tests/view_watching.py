"""How a view stands, as SHOW VIEWS tells it."""

from __future__ import annotations

import json
from typing import Any

from server_process import ServerProcess


def standing(server: ServerProcess, view: str) -> dict[str, Any]:
    """The row of a view in ``system.views``."""
    result = server.results(f"SELECT * FROM system.views WHERE namespace || '.' || view_name = '{view}'")[-1]
    [row] = result["rows"]
    named = dict(zip([column["name"] for column in result["columns"]], row, strict=True))
    return named | {"position": json.loads(named["position"])}


def has_had(server: ServerProcess, view: str, source: str, seq: int) -> bool:
    """Whether a view has had a change of its source."""
    told = standing(server, view)
    return bool(told["state"] == "running" and told["position"].get(source, 0) >= seq)
