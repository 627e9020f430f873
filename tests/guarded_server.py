"""A real ``kalam serve --auth on``, its administrator, and a team: who writes a table, who reads it, and a stranger."""

from __future__ import annotations

import base64
import socket
from dataclasses import dataclass
from pathlib import Path

from server_process import ServerProcess

PASSWORD = "correct horse"
TEAM = ("ada", "ben", "eve")


@dataclass
class GuardedServer(ServerProcess):
    """A server with ``lab.readings`` (SHARED), ``lab.clicks`` (STREAM) and ``lab.notes`` (USER).

    ``ada`` may do everything with them but own them, ``ben`` reads the first two, ``eve`` has no right at all. All have
    ``PASSWORD``, as the administrator has.
    """

    @classmethod
    def started(cls, data_dir: Path, *flags: str) -> GuardedServer:
        server = cls(data_dir, ("--auth=on", *flags), {"KALAM_ADMIN_PASSWORD": PASSWORD})
        server.start()
        for user in TEAM:
            server.sql(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}'")
        server.sql(
            "CREATE NAMESPACE lab; CREATE TABLE lab.readings (sensor TEXT PRIMARY KEY, celsius DOUBLE);"
            "CREATE STREAM TABLE lab.clicks (id BIGINT); CREATE USER TABLE lab.notes (id BIGINT PRIMARY KEY, t TEXT);"
            "GRANT ALL ON NAMESPACE lab TO ada; GRANT SELECT ON TABLE lab.readings TO ben;"
            "GRANT SELECT ON TABLE lab.clicks TO ben"
        )
        return server

    def token(self, user: str, name: str = "test", expires: str = "1d") -> str:
        """A new token of a user."""
        [[*told]] = self.sql(f"CREATE TOKEN '{name}' FOR {user} EXPIRES '{expires}'")
        return next(str(value) for value in told if str(value).startswith("kalam_"))

    def named(self, user: str) -> dict[str, str]:
        """The headers by which a user logs in, with the user's password."""
        return {"Authorization": f"Basic {base64.b64encode(f'{user}:{PASSWORD}'.encode()).decode()}"}


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
