"""The settings of a session, as SET and SHOW know them.

Law: a setting that would change what is answered is kept only as far as that is so. Times are shown in UTC and dates as
ISO has them, whatever is set; that is said, and SHOW goes on telling the truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from kalam import __version__
from kalam.errors import InvalidOption, NotFound, Unsupported
from kalam_pg.durations import milliseconds

SERVER_VERSION: Final = "15.0"
VERSION: Final = f"PostgreSQL {SERVER_VERSION} (Kalam {__version__})"
REPORTED: Final = (
    *("server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "IntervalStyle"),
    *("integer_datetimes", "standard_conforming_strings", "is_superuser", "session_authorization"),
    *("application_name", "default_transaction_read_only", "in_hot_standby"),
)
"""What a client is told of at its start and whenever it changes."""
_TRUTHS: Final = {
    "on": "on",
    "true": "on",
    "yes": "on",
    "1": "on",
    "off": "off",
    "false": "off",
    "no": "off",
    "0": "off",
}
_UTC: Final = frozenset({"utc", "gmt", "etc/utc", "etc/gmt", "zulu", "universal", "0", "+00", "+00:00", "<+00>-00"})
_EXTENSION: Final = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")
NAME_CHARACTERS_MAX: Final = 63
OWN_MAX: Final = 100
"""Settings of names that are nobody's, with a dot, that a session may keep."""


class Setting(msgspec.Struct, frozen=True):
    """What is known of a setting. ``fixed``: it cannot be set at all."""

    name: str
    default: str
    description: str
    fixed: bool = False
    kind: str = "string"


_FIXED: Final = (
    ("server_version", SERVER_VERSION, "as which version of PostgreSQL the server behaves"),
    ("server_version_num", "150000", "the same as a number"),
    ("server_encoding", "UTF8", "the encoding of what is stored"),
    ("integer_datetimes", "on", "times are integers on the wire"),
    ("is_superuser", "off", "whether the user is an administrator"),
    ("session_authorization", "", "the user who has logged in"),
    ("in_hot_standby", "off", "the server is no replica"),
    ("max_index_keys", "32", "columns of a key"),
    ("max_identifier_length", "63", "characters of a name"),
    ("block_size", "8192", "of no meaning here"),
    ("transaction_isolation", "read committed", "each statement sees one moment"),
    ("server_id", "", "of no meaning here"),
    ("wal_level", "logical", "changes are told as they are committed"),
    ("max_connections", "100", "sessions at the same time"),
    ("ssl", "off", "whether TLS is offered"),
    ("data_checksums", "on", "segments have checksums"),
)
"""Name, value and description of what cannot be set."""
_FREE: Final = (
    ("application_name", "", "the name of the client's program", "string"),
    ("client_encoding", "UTF8", "the encoding of what is sent", "string"),
    ("client_min_messages", "notice", "of no meaning here", "string"),
    ("DateStyle", "ISO, MDY", "how dates are shown", "string"),
    ("TimeZone", "UTC", "the zone in which times are shown", "string"),
    ("IntervalStyle", "postgres", "how intervals are shown", "string"),
    ("search_path", '"$user", public', "where tables without a namespace are looked for", "string"),
    ("role", "none", "of no meaning here", "string"),
    ("standard_conforming_strings", "on", "a backslash in a string is one", "bool"),
    ("extra_float_digits", "1", "numbers are always shown exactly", "string"),
    ("bytea_output", "hex", "how BLOBs are shown", "string"),
    (
        "statement_timeout",
        "0",
        "how long a statement may read, in milliseconds; 0 for as long as the server lets it",
        "duration",
    ),
    ("lock_timeout", "0", "of no meaning here", "duration"),
    ("idle_in_transaction_session_timeout", "0", "of no meaning here", "duration"),
    ("idle_session_timeout", "0", "of no meaning here", "duration"),
    ("default_transaction_isolation", "read committed", "each statement sees one moment", "string"),
    ("default_transaction_read_only", "off", "whether blocks may write", "bool"),
    ("default_transaction_deferrable", "off", "of no meaning here", "bool"),
    ("transaction_read_only", "off", "whether the block may write", "bool"),
    ("transaction_deferrable", "off", "of no meaning here", "bool"),
    ("default_tablespace", "", "of no meaning here", "string"),
    ("default_table_access_method", "heap", "of no meaning here", "string"),
    ("row_security", "on", "policies always hold", "bool"),
    ("check_function_bodies", "on", "of no meaning here", "bool"),
    ("synchronous_commit", "on", "a commit is always on disk", "string"),
    ("xmloption", "content", "of no meaning here", "string"),
    ("work_mem", "4MB", "of no meaning here", "string"),
    ("jit", "off", "of no meaning here", "bool"),
    ("enable_seqscan", "on", "of no meaning here", "bool"),
    ("geqo", "on", "of no meaning here", "bool"),
    ("lc_collate", "C", "texts are compared by their bytes", "string"),
    ("lc_ctype", "C.UTF-8", "of no meaning here", "string"),
    ("lc_messages", "C", "of no meaning here", "string"),
    ("lc_monetary", "C", "of no meaning here", "string"),
    ("password_encryption", "scram-sha-256", "how logins are proven", "string"),
)
"""Name, default, description and kind of what can."""
KNOWN: Final = {
    setting.name.lower(): setting
    for setting in (
        *(Setting(name, default, said, fixed=True) for name, default, said in _FIXED),
        *(Setting(name, default, said, kind=kind) for name, default, said, kind in _FREE),
    )
}


def name_of(name: str) -> str:
    """A setting's name as it is shown; raises NotFound (42704)."""
    known = KNOWN.get(name.lower())
    if known is None:
        raise NotFound(f'unrecognized configuration parameter "{name[:80]}"', hint="SHOW ALL lists them")
    return known.name


class SessionSettings:
    """What is set in one session, beginning with what the client's startup says.

    ``fixed`` are values of settings that the server gives. ``changed`` is called with name and value when a setting
    changes of which the client is told. Raises InvalidOption and NotFound for what the startup gets wrong.
    """

    def __init__(self, startup: Mapping[str, str], fixed: Mapping[str, str] | None = None) -> None:
        self._defaults = {name: setting.default for name, setting in KNOWN.items()}
        self._defaults |= {name.lower(): value for name, value in (fixed or {}).items()}
        self._values: dict[str, str] = {}
        self.changes = 0
        """How often something was set."""
        self.changed: Callable[[str, str], None] | None = None
        self.notices = [said for name, value in startup.items() if (said := self.set(name, value)) is not None]
        self._defaults |= self._values

    def show(self, name: str) -> str:
        """What a setting is; raises NotFound."""
        key = name.lower()
        if key in self._values:
            return self._values[key]
        if key not in self._defaults:
            name_of(name)
        return self._defaults[key]

    def set(self, name: str, value: str | None) -> str | None:
        """Set one, or with None put it back; what should be said of it, if anything."""
        self.changes += 1
        key = name.lower()
        known = KNOWN.get(key)
        if known is None:
            if not _EXTENSION.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX or len(self._values) >= OWN_MAX:
                name_of(name)
                raise InvalidOption(f"a session keeps {OWN_MAX} settings")
            self._values[key] = value or ""
            return None
        if known.fixed:
            if value is None or value == self.show(name):
                return None
            raise InvalidOption(f'parameter "{known.name}" cannot be changed')
        kept, said = self._checked(known, self._defaults[key] if value is None else value)
        before = self.show(name)
        self._values[key] = kept
        if kept != before and known.name in REPORTED and self.changed is not None:
            self.changed(known.name, kept)
        return said

    def reset_all(self) -> None:
        """Put all back to what they were at the start."""
        for name in list(self._values):
            if name in KNOWN and not KNOWN[name].fixed:
                self.set(name, None)
        self._values.clear()
        self.changes += 1

    def all(self) -> list[tuple[str, str, str]]:
        """Name, value and description of each."""
        return [(known.name, self.show(name), known.description) for name, known in sorted(KNOWN.items())]

    @property
    def search_path(self) -> list[str]:
        """The namespaces in which a table without one is looked for."""
        found = []
        for part in self.show("search_path").split(","):
            bare = part.strip()
            quoted = len(bare) > 1 and bare.startswith('"') and bare.endswith('"')
            name = bare[1:-1].replace('""', '"') if quoted else bare.lower()
            if name and name not in ("$user", "pg_catalog"):
                found.append(name)
        return found

    def _checked(self, known: Setting, value: str) -> tuple[str, str | None]:  # noqa: C901 - one case a setting
        """The value that is kept, and what is said of it."""
        match known.name:
            case "client_encoding":
                if value.strip().strip("'\"").upper().replace("-", "") not in (
                    "UTF8",
                    "UNICODE",
                    "DEFAULT",
                    "SQL_ASCII",
                ):
                    raise Unsupported("texts are sent in UTF-8", hint="SET client_encoding TO 'UTF8'")
                return "UTF8", None
            case "TimeZone":
                if value.strip().strip("'\"").lower() in _UTC:
                    return "UTC", None
                return "UTC", f"times go on being shown in UTC, and not in {value[:40]}: convert with AT TIME ZONE"
            case "DateStyle":
                if "ISO" in value.upper() or value.upper().strip() in ("MDY", "DMY", "YMD"):
                    return "ISO, MDY", None
                return "ISO, MDY", f"dates go on being shown as ISO has them, and not in {value[:40]}"
            case "IntervalStyle":
                said = None if value.lower() == "postgres" else "intervals go on being shown in the style postgres"
                return "postgres", said
            case "standard_conforming_strings" if _TRUTHS.get(value.lower()) != "on":
                raise Unsupported("a backslash in a string is a backslash", hint="E'…' has escapes")
            case "default_transaction_isolation":
                return "read committed", None
        if known.kind == "bool":
            truth = _TRUTHS.get(value.strip().lower())
            if truth is None:
                raise InvalidOption(f'parameter "{known.name}" requires a Boolean value')
            return truth, None
        if known.kind == "duration":
            milliseconds(value)
        return value, None
