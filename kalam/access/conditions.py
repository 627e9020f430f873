"""Which condition the policies of a table come to for somebody.

Law: permissive policies are joined by OR, and where there is none nothing is visible; what has to hold for two
commands at once (an UPDATE that reads) is joined by AND. A policy that comes to plain values of a column (``owner =
CURRENT_USER()``) is kept as these, so that a row's own value decides and the broker can be told them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from kalam.access.model import Command, Policy
from kalam.access.rights import Rights
from kalam.errors import KalamError, TableInUse
from kalam.names import listed
from kalam.schema import Table
from kalam.sql.queries.compared import columns_of, with_own_forms
from kalam.sql.queries.pins import Condition, Pin
from kalam.sql.queries.readers import read_policy, read_shape, with_column_renamed
from kalam.sql.text.replaced import with_session

KEYS_MAX = 100
"""So many keys of a SUBJECT_KEY a policy may come to at the broker."""
_EVERYTHING = frozenset({"true", "(true)"})


class Restriction(msgspec.Struct, frozen=True):
    """A condition that rows have to meet, as a text and as what is known of it without planning."""

    text: str
    condition: Condition


def check_condition(table: Table, text: str) -> frozenset[str]:
    """The columns that a policy's expression names.

    Raises SyntaxFault, Unsupported (sub-queries, volatile functions, parameters) and ColumnNotFound. Whether it is
    BOOLEAN, and its functions exist, is told where it is planned (``kalam.query.policies``).
    """
    return read_policy(text, table).columns


def check_unused(table: Table, name: str, policies: Iterable[Policy]) -> None:
    """Raise TableInUse where policies name a column."""
    users = [policy.name for policy in policies if any(name in _columns(table, text) for text in _texts(policy))]
    if users:
        raise TableInUse(
            f"column {name} of table {table.name} is named by its policies {listed(users)}",
            hint=f"DROP POLICY {users[0]} ON {table.name} first",
        )


def renamed(policies: Iterable[Policy], name: str, new_name: str) -> list[Policy]:
    """Those of a table's policies that name a column, as they read when it is called otherwise."""
    found = []
    for policy in policies:
        using, check = (
            None if text is None else with_column_renamed(text, name, new_name) for text in (policy.using, policy.check)
        )
        if (using, check) != (policy.using, policy.check):
            found.append(replace(policy, using=using, check=check))
    return found


def _texts(policy: Policy) -> list[str]:
    return [text for text in (policy.using, policy.check) if text is not None]


def _columns(table: Table, text: str) -> frozenset[str]:
    return read_policy(text, table).columns


def read_as(table: Table, text: str, user: str, roles: Sequence[str]) -> Restriction:
    """A policy's expression as it reads for somebody, with what it compares in the columns' own forms."""
    query = with_session(read_policy(text, table).query, user, roles)
    query, _ = with_own_forms(query, (), (), {table.name.table: columns_of(table)})
    return Restriction(query.text, read_shape(query, table))


def using(rights: Rights, user: str, table: Table, commands: Iterable[Command]) -> Restriction | None:
    """What the rows of a table meet that somebody may see for all these commands at once; None where all do."""
    found = [rights.policies(user, table, command) for command in commands]
    asked = [policies for policies in found if policies is not None]
    return _all([_any(table, [each.using for each in policies], user, rights) for policies in asked])


def written(rights: Rights, user: str, table: Table, command: Command, *, reads: bool) -> Restriction | None:
    """What the rows meet that somebody may write by a command; a statement that ``reads`` has to see them too."""
    policies = rights.policies(user, table, command)
    if policies is None:
        return None
    checked = _any(table, [_check_of(policy) for policy in policies], user, rights)
    seen = using(rights, user, table, (Command.SELECT,)) if reads else None
    return _all([checked, seen])


def keys_of(rights: Rights, user: str, table: Table) -> tuple[object, ...] | None:
    """The values of the SUBJECT_KEY to which the policies hold somebody; None where they do not come to such."""
    column = table.options.subject_key
    policies = rights.policies(user, table, Command.SELECT)
    if column is None or not policies:
        return None
    found = _any(table, [each.using for each in policies], user, rights)
    if found is None or not found.condition.whole or len(found.condition.pins) != 1:
        return None
    [pin] = found.condition.pins
    if pin.column != column or not 0 < len(pin.values) <= KEYS_MAX or "" in pin.values:
        return None  # an empty text shares its token with NULL
    return tuple(sorted(pin.values, key=str))


def _check_of(policy: Policy) -> str | None:
    return policy.using if policy.check is None else policy.check


def _any(table: Table, texts: Sequence[str | None], user: str, rights: Rights) -> Restriction | None:
    """What a row meets that meets one of these expressions; None for each row."""
    told = [text for text in texts if text is not None]
    if any(text.strip().lower() in _EVERYTHING for text in told):
        return None
    parts = [part for text in told if (part := _of(table, text, user, rights.roles(user))) is not None]
    if len(parts) <= 1:
        return parts[0] if parts else _nothing(table)
    columns = frozenset[str]().union(*(part.condition.columns for part in parts))
    reads_clock = any(part.condition.reads_clock for part in parts)
    pin = _joined(parts)
    condition = Condition(columns, () if pin is None else (pin,), whole=pin is not None, reads_clock=reads_clock)
    return Restriction(" OR ".join(f"({part.text}\n)" for part in parts), condition)


def _nothing(table: Table) -> Restriction:
    """What no row meets, which is known without planning."""
    return Restriction("FALSE", Condition(frozenset(), (Pin(table.columns[0].name, frozenset()),), True, False))


def _joined(parts: Sequence[Restriction]) -> Pin | None:
    """The values of one column that all of these come to together."""
    pins = [part.condition.pins[0] for part in parts if part.condition.whole and len(part.condition.pins) == 1]
    if len(pins) < len(parts) or len({pin.column for pin in pins}) > 1:
        return None
    return Pin(pins[0].column, frozenset().union(*(pin.values for pin in pins)))


def _all(parts: Sequence[Restriction | None]) -> Restriction | None:
    """What a row meets that meets all of these."""
    told = list(dict.fromkeys(part for part in parts if part is not None))
    if len(told) <= 1:
        return told[0] if told else None
    conditions = [part.condition for part in told]
    condition = Condition(
        columns=frozenset[str]().union(*(each.columns for each in conditions)),
        pins=tuple(pin for each in conditions for pin in each.pins),
        whole=all(each.whole for each in conditions),
        reads_clock=any(each.reads_clock for each in conditions),
    )
    return Restriction(" AND ".join(f"({part.text}\n)" for part in told), condition)


def _of(table: Table, text: str, user: str, roles: Sequence[str]) -> Restriction | None:
    """One expression as it reads for somebody; None where it can hold for no row, as it stands there."""
    try:
        return read_as(table, text, user, roles)
    except KalamError:  # of a column that is of another type by now, or a user's name that is no UUID: it hides all
        return None
