"""Where a request's statements look for names, and how the answer is shown, beside who asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from kalam.access.identity import ADMINISTRATOR, Identity
from kalam.sql.text.statements import Delete, Update
from kalam.storage.log.temporary import TemporarySpace


class Session(msgspec.Struct, frozen=True, gc=False):
    """Who asks, in which default namespace, and how the answer is shown.

    ``postgresql_names``: columns without a name are called as in PostgreSQL. ``bigint_as_text``: JSON has BIGINT values
    as text, for clients whose numbers are exact up to 2^53 only. ``door`` is where the request came in;
    ``temporary`` has the tables of the session that it is of, where its door has sessions.
    """

    identity: Identity = ADMINISTRATOR
    namespace: str | None = None
    postgresql_names: bool = False
    bigint_as_text: bool = False
    door: str = ""
    temporary: TemporarySpace | None = None

    @property
    def user(self) -> str:
        """The name by which the user owns copies of USER tables."""
        return self.identity.user

    @property
    def has_temporary(self) -> bool:
        """Whether a name may mean a temporary table."""
        return self.temporary is not None and bool(self.temporary.tables)


class Request(msgspec.Struct, frozen=True):
    """A statement's surroundings: who asks, and the values of its parameters.

    ``many`` are the parameters of an INSERT that is carried out for several of them at once: rows, or a table whose
    columns are ``$1 …``.
    """

    session: Session
    parameters: Sequence[Any]
    many: Sequence[Sequence[Any]] | pa.Table | None = None

    @property
    def parameter_rows(self) -> Sequence[Sequence[Any]]:
        """The parameters of each time that the statement is carried out."""
        return (self.parameters,) if self.many is None or isinstance(self.many, pa.Table) else self.many


def reads_rows(statement: Update | Delete) -> bool:
    """Whether a change asks what is in the rows."""
    if statement.where is not None or statement.returning is not None or statement.sources is not None:
        return True
    return isinstance(statement, Update) and any(each.value.constant is None for each in statement.assignments)
