"""What SCRAM keeps of the secrets of users, beside their hashes: it cannot be made from those.

``credential`` is '' for the password and else the id of a token. All of a user's have one salt. The row of user '' has,
as its salt, the secret from which the salts of names are derived that nobody has.
"""

from __future__ import annotations

from typing import Any


def verifiers(db: Any) -> None:
    """Make the table."""
    db.execute(
        """CREATE TABLE verifiers (
            user TEXT NOT NULL,
            credential TEXT NOT NULL,
            salt BLOB NOT NULL,
            iterations INTEGER NOT NULL,
            stored_key BLOB NOT NULL,
            server_key BLOB NOT NULL,
            PRIMARY KEY (user, credential)
        ) WITHOUT ROWID"""
    )
    db.execute("INSERT INTO verifiers VALUES ('', '', randomblob(32), 0, x'', x'')")
