"""Every error that Kalam answers with, and its stable code.

The codes are part of the contract with the outside (they stand in HTTP bodies, NATS headers and logs), so a class is
renamed freely and a code never::

    KalamError
    ├── RequestError ─ 400
    │   ├── SyntaxFault          syntax_error
    │   ├── Unsupported          unsupported
    │   ├── InvalidName          invalid_name
    │   ├── InvalidOption        invalid_option
    │   ├── InvalidValue         invalid_value
    │   ├── NotNullViolation     not_null_violation
    │   ├── ColumnNotFound       column_not_found
    │   └── CursorExpired        cursor_expired
    ├── Unauthenticated ─ 401    unauthenticated
    ├── PermissionDenied ─ 403   permission_denied
    ├── Missing ─ 404
    │   ├── NamespaceNotFound    namespace_not_found
    │   ├── TableNotFound        table_not_found
    │   └── NotFound             not_found
    ├── Timeout ─ 408            timeout
    ├── Conflict ─ 409
    │   ├── DuplicateKey         duplicate_key
    │   ├── AlreadyExists        already_exists
    │   ├── TableInUse           table_in_use
    │   └── Cancelled            cancelled
    ├── TooLarge ─ 413           too_large
    ├── TooBusy ─ 429            too_busy
    ├── Internal ─ 500           internal
    ├── CorruptSegment ─ 500     corrupt_segment
    └── Unavailable ─ 503
        ├── StorageFull          storage_full
        └── BrokerUnavailable    broker_unavailable

An error of a library is mapped to one of these once, at the adapter that calls the library, ``from`` the original.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Self

_QUOTED_PATH: Final = re.compile(r"""(?<!LOCATION )(['"])(?:file://)?/(?:[^'"/]+/)+([^'"/]+)\1""")
_PATH: Final = re.compile(r"""(?<![\w.~'"/:])(?:file://)?/(?:[^\s'"/:,;()]+/)+([^\s'"/:,;()]+)""")
_FILE: Final = re.compile(r"""(?<![\w/])(?:[^\s'"/:,;()]+/)+([^\s'"/:,;()]+\.(?:parquet|arrow|db)\b)""")

_QUOTED: Final = re.compile(r"""'.*'|".*\"""", re.DOTALL)
_KIND: Final = re.compile(
    r"\bcolumn [a-z0-9_]+ expects [A-Z]+\b"
    r"|\b(?i:divide|division) by zero\b"
    r"|\bout of range(?: of [A-Z]+)?\b"
    r"|\bto (?:value of |type )?(?P<cast>(?:U?Int|Float|Decimal|Date|Time|Timestamp|Boolean|Interval)\d*)\b"
    r"|\btoo large to store in a Decimal\d+\b"
    r"|\bis no (?:JSON|UUID)\b|\bparsing timestamp\b"
)


def without_folders(text: str) -> str:
    """A text in which each path of a file is the file's name alone; a LOCATION that a user gave stays."""
    text = _QUOTED_PATH.sub(r"\1\2\1", text)
    return _FILE.sub(r"\1", _PATH.sub(r"\1", text))


class KalamError(Exception):
    """Something that a user is told, with a stable code and an HTTP status.

    ``detail`` says what went wrong, where, and what to do. ``fields`` are further members of the problem object, such
    as ``hint``, ``line``, ``column``, ``statement``, ``stored``.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = {name: value for name, value in fields.items() if value is not None}

    def as_value(self) -> Self:
        """The error to be kept and told later, without the frames that it came through.

        A frame that keeps an error, or is below one that does, is held by the error's traceback: a cycle, with every
        row and result in those frames, until Python's collector comes by.
        """
        behind: list[BaseException | None] = [self]
        seen: set[int] = set()  # whoever raises one `from` another may tie them in a ring
        while behind:
            error = behind.pop()
            if error is not None and id(error) not in seen:
                seen.add(id(error))
                error.__traceback__ = None
                behind += (error.__cause__, error.__context__)
        return self

    @property
    def told(self) -> str:
        """The detail as others may read it: where the fault is the server's, without the folders of its files.

        The log has them. What the caller did wrong is told as it is, for it may be about a path of their own.
        """
        return without_folders(self.detail) if self.status >= 500 else self.detail

    @property
    def kind(self) -> str:
        """What is wrong, for those who may not see rows: of the detail only what is known to hold no value."""
        known = _KIND.search(_QUOTED.sub("…", self.detail))
        if known is None:
            return self.title
        return f"no cast to {known['cast']}" if known["cast"] else known[0]

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 problem object: ``type, title, status, detail, code`` and the members of ``fields``."""
        return {
            "type": f"urn:kalam:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.told,
            "code": self.code,
            **self.fields,
        }


class RequestError(KalamError):
    """The request itself is wrong; repeating it will not help."""

    status = 400


class SyntaxFault(RequestError):
    """The text is not SQL that Kalam knows."""

    code = "syntax_error"
    title = "Syntax error"


class Unsupported(RequestError):
    """The statement is understood and refused."""

    code = "unsupported"
    title = "Not supported"


class InvalidName(RequestError):
    """A name or user id breaks the rule for its kind."""

    code = "invalid_name"
    title = "Invalid name"


class InvalidOption(RequestError):
    """A table option is unknown, of another kind of table, or out of its bounds."""

    code = "invalid_option"
    title = "Invalid option"


class InvalidValue(RequestError):
    """A value does not fit its column or parameter."""

    code = "invalid_value"
    title = "Invalid value"


class NotNullViolation(RequestError):
    """A NOT NULL column got no value."""

    code = "not_null_violation"
    title = "NULL in a NOT NULL column"


class ColumnNotFound(RequestError):
    """A statement or row names a column that the table does not have."""

    code = "column_not_found"
    title = "Column not found"


class CursorExpired(RequestError):
    """A live query cannot be resumed from that change any more."""

    code = "cursor_expired"
    title = "Cursor expired"


class Unauthenticated(KalamError):
    """The caller did not say who they are."""

    code = "unauthenticated"
    status = 401
    title = "Not authenticated"


class PermissionDenied(KalamError):
    """The caller may not do this."""

    code = "permission_denied"
    status = 403
    title = "Permission denied"


class Missing(KalamError):
    """Something that was named does not exist."""

    status = 404


class NamespaceNotFound(Missing):
    """There is no such namespace."""

    code = "namespace_not_found"
    title = "Namespace not found"


class TableNotFound(Missing):
    """There is no such table."""

    code = "table_not_found"
    title = "Table not found"


class NotFound(Missing):
    """There is no such job, live query or running query."""

    code = "not_found"
    title = "Not found"


class Timeout(KalamError):
    """The statement, or the request itself, took longer than allowed."""

    code = "timeout"
    status = 408
    title = "Timed out"


class Conflict(KalamError):
    """The request collides with what is there."""

    status = 409


class DuplicateKey(Conflict):
    """A row with this primary key exists."""

    code = "duplicate_key"
    title = "Duplicate key"


class AlreadyExists(Conflict):
    """A namespace, table or column of this name exists."""

    code = "already_exists"
    title = "Already exists"


class TableInUse(Conflict):
    """The table cannot be dropped or changed while it is used so."""

    code = "table_in_use"
    title = "Table in use"


class Cancelled(Conflict):
    """The statement or job was cancelled."""

    code = "cancelled"
    title = "Cancelled"


class TooLarge(KalamError):
    """A row, batch, body or result is over its bound."""

    code = "too_large"
    status = 413
    title = "Too large"


class TooBusy(KalamError):
    """A bounded queue is full; try again a little later."""

    code = "too_busy"
    status = 429
    title = "Too busy"


class Internal(KalamError):
    """A defect of Kalam; the log has the traceback."""

    code = "internal"


class CorruptSegment(KalamError):
    """A file of a table is missing, damaged or another one; other tables are well."""

    code = "corrupt_segment"
    title = "Damaged segment"


class Unavailable(KalamError):
    """Something that Kalam stands on is out of order at the moment."""

    status = 503


class StorageFull(Unavailable):
    """The disk is full or refuses writes."""

    code = "storage_full"
    title = "Storage full or failing"


class BrokerUnavailable(Unavailable):
    """NATS does not answer or does not store."""

    code = "broker_unavailable"
    title = "Broker unavailable"


def error_class(code: str) -> type[KalamError]:
    """The class of the errors with a code; Internal for one that is not known."""
    todo: list[type[KalamError]] = [KalamError]
    while todo:
        error = todo.pop()
        todo += error.__subclasses__()
        if vars(error).get("code") == code and error.__module__ == KalamError.__module__ and error is not KalamError:
            return error
    return Internal
