"""What a user may publish and hear at the broker, from what the user may in SQL.

The law: a plain user publishes requests under their own name and nothing else, because the broker does not check where
an answer goes: whoever may publish anything that is answered could have the answer sent into another's inbox or into
``kalam.shared.…``. So events are forged by nobody, and JetStream's API is for trusted services alone.

A list of what is allowed is never empty: the broker takes an empty one for everything.

A namespace's wildcard stands where SELECT on the whole namespace was granted, and with a deny for each table under it
whose policies hide rows from the user. The broker lets a deny win over each allow: where a policy compiles to keys
there is no wildcard, and the tables are named singly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from kalam.names import TableName
from kalam_nats.subjects import Subjects, inbox_prefix

SUBJECTS_MAX: Final = 10_000
"""How many subjects a login may name: about 14,500 make a token of 1 MiB, which a broker may not take."""

_CONSUMERS: Final = (
    *("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "LIST", "NAMES"),
    *("MSG.NEXT", "PAUSE", "RESET", "UNPIN"),
)

log = structlog.get_logger(__name__)


class TableReach(msgspec.Struct, frozen=True):
    """A STREAM (``stream``) or SHARED table whose events a user may hear.

    ``keys`` are the tokens of its SUBJECT_KEY to which a policy holds the user; None for all events.
    """

    name: TableName
    stream: bool
    keys: tuple[str, ...] | None = None


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may, as far as the broker is to know it.

    Args:
        user: the user's id.
        administers: every table of every namespace, and Kalam's events.
        namespaces: those of whose tables the user may read each, the tables to come too.
        tables: the tables with SELECT whose raw events the user may hear; those of ``namespaces`` need not be named
            but where a policy compiles to keys, and then each of that namespace.
        hidden: the tables of ``namespaces`` of which policies hide rows from the user.
        jetstream: the STREAM tables whose stream the user is trusted with.
    """

    user: str
    administers: bool = False
    namespaces: frozenset[str] = frozenset()
    tables: tuple[TableReach, ...] = ()
    hidden: tuple[TableReach, ...] = ()
    jetstream: tuple[TableName, ...] = ()


class Permissions(msgspec.Struct, frozen=True):
    """Subjects that a connection may publish, may subscribe to, and may not hear though a wildcard allows them.

    ``read`` are those of the streams that it may read by JetStream's API.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    @property
    def hears(self) -> tuple[str, ...]:
        """All that can come to the connection in some way."""
        return self.subscribe + self.read


def permissions(reach: Reach, subjects: Subjects) -> Permissions:
    """The permissions of a user's connection; neither list of what is allowed is empty."""
    user = reach.user
    own = (f"{inbox_prefix(user)}.>", subjects.copies_of(user), subjects.live_messages_of(user))
    singly = {table.name.namespace for table in reach.tables if table.keys is not None}
    heard: list[str] = []
    whole: tuple[str, ...] = tuple(sorted(reach.namespaces - singly))
    if reach.administers:
        heard.append(subjects.events)
        whole = whole if singly else ("*",)
    for namespace in whole:
        heard += subjects.heard_in(namespace)
    for table in reach.tables:
        if "*" not in whole and table.name.namespace not in whole:
            heard += _heard(table, subjects)
    deny = [
        subject
        for table in reach.hidden
        if "*" in whole or table.name.namespace in whole
        for subject in _all_heard(table, subjects)
    ]
    if len(heard) + len(deny) > SUBJECTS_MAX:
        log.warning("a login names too many subjects; GRANT … ON NAMESPACE takes one", user=user, subjects=len(heard))
        heard = heard[:SUBJECTS_MAX] if not deny else []
    publish = (subjects.requests_of(user), *_jetstream(reach.jetstream, subjects))
    read = [subject for name in reach.jetstream for subject in _all_heard(TableReach(name, True), subjects)]
    return Permissions(publish, (*own, *heard), tuple(deny) if heard else (), tuple(read))


def table_subjects(name: TableName, subjects: Subjects) -> tuple[str, ...]:
    """Patterns of everything that tells of a STREAM or SHARED table of that name."""
    return tuple(subject for stream in (True, False) for subject in _all_heard(TableReach(name, stream), subjects))


def _heard(table: TableReach, subjects: Subjects) -> Iterable[str]:
    if table.keys is None:
        return _all_heard(table, subjects)
    namespace, name = table.name.namespace, table.name.table
    if table.stream:
        return [subjects.stream_event_subject(namespace, name, key) for key in table.keys]
    keyed = [subjects.keyed_changes(namespace, name, key) for key in table.keys]
    return [*keyed, subjects.truncations(namespace, name)] if keyed else keyed


def _all_heard(table: TableReach, subjects: Subjects) -> Iterable[str]:
    namespace, name = table.name.namespace, table.name.table
    if table.stream:
        return [subjects.stream_event_subject(namespace, name, key) for key in (None, ">")]
    return [subjects.copy_subjects("", namespace, name)]


def _jetstream(names: Iterable[TableName], subjects: Subjects) -> Iterable[str]:
    """What reads a stream: its consumers, its messages by number, acks and flow control; nothing that changes it."""
    streams = [subjects.stream_name(name.namespace, name.table) for name in names]
    if streams:
        yield "$JS.API.INFO"
    for stream in streams:
        yield f"$JS.API.STREAM.INFO.{stream}"
        for api in (f"$JS.API.STREAM.MSG.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}"):
            yield from (api, f"{api}.>")
        for verb in _CONSUMERS:
            yield from (f"$JS.API.CONSUMER.{verb}.{stream}", f"$JS.API.CONSUMER.{verb}.{stream}.>")
        yield from (f"$JS.ACK.{stream}.>", f"$JS.ACK.*.*.{stream}.>", f"$JS.FC.{stream}.>")
