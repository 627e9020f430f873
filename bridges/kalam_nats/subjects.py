"""Subjects and stream names: where on NATS a table, a request or an event is.

The law: a namespace, table, user or key is exactly one token. A user comes only from a subject that was matched
against the whole pattern that is served, because a subscription to ``kalam.api.*.insert.*.*`` is all that NATS promises
about it. Every name in a request is held to 63 characters, so that no subject built from it can pass the broker's
control line, which would cost the connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from kalam.errors import InvalidName

_USER = r"([A-Za-z0-9_-]{1,64})"
_TOKEN = r"([^.*>\s]{1,63})"  # noqa: S105 - a token of a subject

Operation = Literal["insert", "update", "delete", "truncate"]


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects under one prefix (the setting ``subject_prefix``)."""

    prefix: str = "kalam"
    _request: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _insert: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _sql: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _live: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _replay: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _live_close: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        api = rf"{re.escape(self.prefix)}\.api\.{_USER}\."
        object.__setattr__(self, "_request", re.compile(api))
        object.__setattr__(self, "_insert", re.compile(rf"{api}insert\.{_TOKEN}\.{_TOKEN}"))
        object.__setattr__(self, "_sql", re.compile(rf"{api}sql"))
        object.__setattr__(self, "_live", re.compile(rf"{api}live"))
        object.__setattr__(self, "_replay", re.compile(rf"{api}replay"))
        object.__setattr__(self, "_live_close", re.compile(rf"{api}live\.{_TOKEN}\.close"))

    # Requests: the subject to send to, and with "*" for every name the pattern that is served.

    def insert_subject(self, user: str = "*", namespace: str = "*", table: str = "*") -> str:
        """The subject of inserts into a table; without arguments the pattern that the server subscribes to."""
        return f"{self.prefix}.api.{user}.insert.{namespace}.{table}"

    def sql_subject(self, user: str = "*") -> str:
        """The subject of SQL requests."""
        return f"{self.prefix}.api.{user}.sql"

    def live_subject(self, user: str = "*") -> str:
        """The subject that opens a live query."""
        return f"{self.prefix}.api.{user}.live"

    def replay_subject(self, user: str = "*") -> str:
        """The subject that opens a replay of a STREAM table's events."""
        return f"{self.prefix}.api.{user}.replay"

    def live_close_subject(self, user: str = "*", query_id: str = "*") -> str:
        """The subject that closes a live query."""
        return f"{self.prefix}.api.{user}.live.{query_id}.close"

    def info_subject(self, user: str = "*") -> str:
        """The subject that answers which server this is and where else it is found."""
        return f"{self.prefix}.api.{user}.info"

    def parse_user(self, subject: str) -> str:
        """Take the user from any request's subject; raise InvalidName if it is none."""
        match = self._request.match(subject)
        if match is None:
            raise _not_served(subject, self.requests_of("<user>"))
        return match[1]

    def parse_insert_subject(self, subject: str) -> tuple[str, str, str]:
        """Take user, namespace and table from an insert's subject; raise InvalidName if it is anything else."""
        match = self._insert.fullmatch(subject)
        if match is None:
            raise _not_served(subject, self.insert_subject("<user>", "<ns>", "<table>"))
        return match[1], match[2], match[3]

    def parse_sql_subject(self, subject: str) -> str:
        """Take the user from a SQL request's subject; raise InvalidName if it is anything else."""
        match = self._sql.fullmatch(subject)
        if match is None:
            raise _not_served(subject, self.sql_subject("<user>"))
        return match[1]

    def parse_live_subject(self, subject: str) -> str:
        """Take the user from the subject that opens a live query; raise InvalidName if it is anything else."""
        match = self._live.fullmatch(subject)
        if match is None:
            raise _not_served(subject, self.live_subject("<user>"))
        return match[1]

    def parse_replay_subject(self, subject: str) -> str:
        """Take the user from the subject that opens a replay; raise InvalidName if it is anything else."""
        match = self._replay.fullmatch(subject)
        if match is None:
            raise _not_served(subject, self.replay_subject("<user>"))
        return match[1]

    def parse_live_close_subject(self, subject: str) -> tuple[str, str]:
        """Take user and query id from the subject that closes a live query; raise InvalidName if it is another."""
        match = self._live_close.fullmatch(subject)
        if match is None:
            raise _not_served(subject, self.live_close_subject("<user>", "<id>"))
        return match[1], match[2]

    # What Kalam publishes. ``key`` is a token of ``kalam.rows.subject_key``; None where the table has no SUBJECT_KEY.

    def stream_event_subject(self, namespace: str, table: str, key: str | None = None) -> str:
        """The subject on which rows enter a STREAM table."""
        return _keyed(f"{self.prefix}.stream.{namespace}.{table}", key)

    def stream_event_subjects(self, namespace: str, table: str, *, keyed: bool) -> str:
        """The subject that a STREAM table's JetStream stream captures."""
        return self.stream_event_subject(namespace, table, "*" if keyed else None)

    def change_subject(
        self,
        owner: str,
        namespace: str,
        table: str,
        operation: Operation,
        key: str | None = None,
    ) -> str:
        """The subject of a change; ``owner`` is the user whose copy of a USER table it is, '' for a SHARED table."""
        return _keyed(f"{self._copy(owner, namespace, table)}.{operation}", key)

    def copy_subjects(self, owner: str, namespace: str, table: str) -> str:
        """The subjects of all changes of a copy."""
        return f"{self._copy(owner, namespace, table)}.>"

    def _copy(self, owner: str, namespace: str, table: str) -> str:
        whose = f"user.{owner}" if owner else "shared"
        return f"{self.prefix}.{whose}.{namespace}.{table}"

    def rejected_subject(self, namespace: str, table: str, owner: str = "") -> str:
        """The subject of refused inserts; ``owner`` is their user where the table is a USER table."""
        if not owner:
            return f"{self.prefix}.event.rejected.{namespace}.{table}"
        return f"{self.prefix}.user.{owner}.{namespace}.{table}.rejected"

    def event_subject(self, what: str) -> str:
        """The subject of ``table.created``, ``table.dropped`` and ``job.finished``."""
        return f"{self.prefix}.event.{what}"

    def live_messages_subject(self, user: str, query_id: str) -> str:
        """The subject that carries a live query's messages."""
        return f"{self.prefix}.live.{user}.{query_id}"

    # What a user may say and hear where logins are asked for; patterns.

    def requests_of(self, user: str) -> str:
        """Everything that a user may publish."""
        return f"{self.prefix}.api.{user}.>"

    def copies_of(self, user: str) -> str:
        """The changes of a user's copies, and what was refused of them."""
        return f"{self.prefix}.user.{user}.>"

    def live_messages_of(self, user: str) -> str:
        """The messages of a user's live queries."""
        return f"{self.prefix}.live.{user}.>"

    def keyed_changes(self, namespace: str, table: str, key: str) -> str:
        """The changes of a SHARED table under one key."""
        return f"{self._copy('', namespace, table)}.*.{key}"

    def truncations(self, namespace: str, table: str) -> str:
        """What tells that a SHARED table was emptied, which has no key."""
        return f"{self._copy('', namespace, table)}.truncate"

    def heard_in(self, namespace: str) -> tuple[str, ...]:
        """The events of every STREAM and SHARED table of a namespace; ``*`` for all namespaces."""
        heads = f"{self.prefix}.shared", f"{self.prefix}.stream"
        return tuple(f"{head}.>" if namespace == "*" else f"{head}.{namespace}.>" for head in heads)

    @property
    def events(self) -> str:
        """Every event that is no row's."""
        return f"{self.prefix}.event.>"

    # JetStream streams.

    @property
    def stream_prefix(self) -> str:
        """How the names of all of Kalam's JetStream streams begin."""
        return f"{self.prefix.upper()}-"

    def stream_name(self, namespace: str, table: str) -> str:
        """The JetStream stream of a STREAM table."""
        return f"{self.stream_prefix}{namespace}-{table}"

    @property
    def changes_stream(self) -> str:
        """The JetStream stream of every SHARED table's changes."""
        return f"{self.stream_prefix}CHANGES"

    @property
    def changes_subjects(self) -> tuple[str, ...]:
        """What the stream of SHARED tables captures."""
        return (f"{self.prefix}.shared.>",)

    @property
    def user_changes_stream(self) -> str:
        """The JetStream stream of every USER table's changes."""
        return f"{self.stream_prefix}USER-CHANGES"

    def changes_stream_of(self, owner: str) -> str:
        """The JetStream stream of the changes of a copy."""
        return self.user_changes_stream if owner else self.changes_stream

    @property
    def user_changes_subjects(self) -> tuple[str, ...]:
        """What the stream of USER tables captures: the changes, with and without key, and not the rejected."""
        copy = f"{self.prefix}.user.*.*.*"
        keyed = [f"{copy}.{operation}{key}" for operation in ("insert", "update", "delete") for key in ("", ".*")]
        return (*keyed, f"{copy}.truncate")


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to ``pattern`` receives what is published on ``subject``, which has no wildcards."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


def subjects_overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    mine, theirs = one.split("."), other.split(".")
    for a, b in zip(mine, theirs, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(mine) == len(theirs)


def inbox_prefix(user: str) -> str:
    """The prefix of a user's inboxes, without the point behind it: nobody else may hear what is answered there."""
    return f"_INBOX.{user}"


def _keyed(subject: str, key: str | None) -> str:
    return subject if key is None else f"{subject}.{key}"


def _not_served(subject: str, pattern: str) -> InvalidName:
    return InvalidName(f"subject {subject[:120]!r} is not of the form {pattern}")
