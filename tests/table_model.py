"""A table as a dictionary: what statements make of it, with its columns and what its change feed tells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

PARTS: dict[str, list[Any]] = {
    "BIGINT": [-(2**63), -1, 0, 1, 2, 2**63 - 1],
    "TEXT": ["", "a", "A", "a ", "ä", "b"],
    "DATE": ["0001-01-01", "1969-12-31", "1970-01-01", "2026-02-28", "2026-03-01", "9999-12-31"],
    "DECIMAL(12,2)": ["-10.00", "-2.50", "0.00", "0.10", "2.50", "10.00"],
    "UUID": [f"{n:08x}-0000-4000-8000-{n * 7919:012x}" for n in (9, 8, 1, 2, 3, 4)],
}
"""Six values of each type that a key's column may have."""

Types = tuple[str, ...]
PAIRS: list[tuple[Types, list[tuple[int, ...]]]] = [
    (("TEXT", "BIGINT"), [(0, 1), (1, 0), (1, 1), (1, 5), (3, 0), (5, 1)]),
    (("BIGINT", "TEXT"), [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2), (5, 0)]),
    (("DATE", "UUID", "DECIMAL(12,2)"), [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 1, 2), (4, 1, 2), (4, 5, 0)]),
]
KEYS: dict[Types, list[tuple[Any, ...]]] = {
    **{(own,): [(value,) for value in values] for own, values in PARTS.items()},
    **{
        types: [tuple(PARTS[own][place] for own, place in zip(types, places, strict=True)) for places in chosen]
        for types, chosen in PAIRS
    },
}
"""Six keys of each combination of types, which the statements name by their places."""

Kind = Literal["SHARED", "USER"]
Type = Literal["INT", "TEXT"]
Values = dict[str, Any]
Row = dict[int, Any]
KEY_NAMES = "klm"
LABELS = itertools.count(10)


@dataclass(frozen=True)
class Column:
    """A column under its present name; ``label`` tells it from all that ever had this name. The key's are 0, -1, …."""

    label: int
    name: str
    type: str
    default: Any = None

    @property
    def is_key(self) -> bool:
        return self.label <= 0

    @property
    def told(self) -> str:
        """The name that it has in the feed of a model: the first one, if it is the key's."""
        return KEY_NAMES[-self.label] if self.is_key else self.name


@dataclass
class CopyModel:
    """One copy: the rows by key, the deleted ones whose key has not come again, and the rows as the feed told them."""

    rows: dict[Any, Row] = field(default_factory=dict)
    deleted: dict[Any, Row] = field(default_factory=dict)
    told: dict[Any, Values] = field(default_factory=dict)
    changes: int = 0


@dataclass(frozen=True)
class Statement:
    """SQL and what it makes of the model; ``effect`` is None where a key that is taken refuses it."""

    text: str
    params: Sequence[Any] = ()
    user: str = "ann"
    effect: Callable[[TableModel], None] | None = lambda model: None


@dataclass
class TableModel:
    """A SHARED or USER table with the users ann and bob, for whom SHARED rows are the same ones.

    A method whose result is a Statement changes nothing; the statement's ``effect`` does, on the model that it gets.
    """

    name: str
    kind: Kind
    key_types: Types
    columns: list[Column] = field(default_factory=list)
    copies: dict[str, CopyModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.columns:
            key = [Column(-part, KEY_NAMES[part], own) for part, own in enumerate(self.key_types)]
            self.columns = [Column(1, "a", "INT"), *key[::-1], Column(2, "b", "TEXT")]
            shared = CopyModel()
            self.copies = {"ann": shared, "bob": CopyModel() if self.kind == "USER" else shared}

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        return KEYS[self.key_types]

    @property
    def key(self) -> list[Column]:
        """The key's columns in the order of the key."""
        return sorted((column for column in self.columns if column.is_key), key=lambda column: -column.label)

    @property
    def key_names(self) -> str:
        return ", ".join(column.name for column in self.key)

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[-part] for part in range(len(self.key_types)))

    def keyed(self, key: tuple[Any, ...]) -> Row:
        """What a row with this key has in the key's columns."""
        return {-part: value for part, value in enumerate(key)}

    @property
    def owners(self) -> list[str]:
        """A user for each copy."""
        return list(self.copies) if self.kind == "USER" else ["ann"]

    @property
    def listed(self) -> str:
        return ", ".join(column.name for column in self.columns)

    def free_name(self) -> str | None:
        """The first name that no column has, of the eight that the columns beside the key may have."""
        names = {column.name for column in self.columns}
        return next((name for name in "abcdefgh" if name not in names), None)

    def first(self, type_name: Type) -> Column | None:
        """The first column of a type, the key aside."""
        return next((column for column in self.columns if column.type == type_name and not column.is_key), None)

    def literals(self, place: int) -> list[str]:
        """A key as expressions of its types, which a comparison needs."""
        types = ["TEXT" if own == "UUID" else own for own in self.key_types]
        return [f"CAST('{value}' AS {own})" for value, own in zip(self.keys[place], types, strict=True)]

    def has_key(self, place: int) -> str:
        """The condition that a row has this key."""
        parts = zip(self.key, self.literals(place), strict=True)
        return " AND ".join(f"{column.name} = {literal}" for column, literal in parts)

    def set_key(self, values: Sequence[str]) -> str:
        return ", ".join(f"{column.name} = {value}" for column, value in zip(self.key, values, strict=True))

    def by_key(self, place: int) -> tuple[str, list[Any]]:
        """The same condition and its parameters, as a read by key has it where the types have such reads."""
        if not set(self.key_types) <= {"BIGINT", "TEXT", "UUID"}:
            return self.has_key(place), []
        parts = [f"{column.name} = ${number}" for number, column in enumerate(self.key, 1)]
        return " AND ".join(reversed(parts)), list(self.keys[place])

    def create(self) -> str:
        columns = ", ".join(f"{column.name} {column.type}" for column in self.columns)
        return f"CREATE {self.kind} TABLE {self.name} ({columns}, PRIMARY KEY ({self.key_names}))"

    def shown(self, rows: dict[Any, Row]) -> list[list[Any]]:
        """Rows as a SELECT of all columns gives them, in no order."""
        return [[row[column.label] for column in self.columns] for row in rows.values()]

    def row(self, place: int, number: Any, text: Any) -> Row:
        """A row with this number and this text in every column that takes one."""
        values = {"INT": number, "TEXT": text}
        row = {column.label: values.get(column.type) for column in self.columns}
        return row | self.keyed(self.keys[place])

    # What statements do to a copy

    def put(self, user: str, row: Row) -> None:
        copy, key = self.copies[user], self.key_of(row)
        copy.rows[key] = row
        copy.deleted.pop(key, None)
        copy.told[key] = {column.told: row[column.label] for column in self.columns}
        copy.changes += 1

    def take(self, user: str, key: Any) -> Row:
        copy = self.copies[user]
        row = copy.deleted[key] = copy.rows.pop(key)
        del copy.told[key]
        copy.changes += 1
        return row

    def put_all(self, user: str, rows: Iterable[Row]) -> None:
        for row in rows:
            self.put(user, row)

    def take_all(self, user: str, keys: Iterable[Any]) -> None:
        for key in keys:
            self.take(user, key)

    # Statements that write rows

    def _insert(self, rows: Sequence[Row], columns: Sequence[Column], rest: str = "") -> tuple[str, list[Any]]:
        names = ", ".join(column.name for column in columns)
        width = len(columns)
        values = [", ".join(f"${width * n + i + 1}" for i in range(width)) for n in range(len(rows))]
        params = [row[column.label] for row in rows for column in columns]
        return f"INSERT INTO {self.name} ({names}) VALUES {', '.join(f'({each})' for each in values)} {rest}", params

    def insert(self, user: str, rows: Sequence[tuple[int, Any, Any]]) -> Statement:
        named = [self.row(*row) for row in rows]
        text, params = self._insert(named, self.columns)
        keys = [self.key_of(row) for row in named]
        if len(set(keys)) < len(keys) or not self.copies[user].rows.keys().isdisjoint(keys):
            return Statement(text, params, user, None)
        return Statement(text, params, user, lambda model: model.put_all(user, named))

    def insert_key(self, user: str, place: int) -> Statement:
        """A row of which only the key is given; the rest are defaults."""
        row = {column.label: column.default for column in self.columns} | self.keyed(self.keys[place])
        text, params = self._insert([row], self.key)
        taken = self.keys[place] in self.copies[user].rows
        return Statement(text, params, user, None if taken else lambda model: model.put(user, row))

    def insert_or_ignore(self, user: str, place: int, number: Any, text: Any) -> Statement:
        row = self.row(place, number, text)
        sql, params = self._insert([row], self.columns, f"ON CONFLICT ({self.key_names}) DO NOTHING")
        if self.keys[place] in self.copies[user].rows:
            return Statement(sql, params, user)
        return Statement(sql, params, user, lambda model: model.put(user, row))

    def upsert(self, user: str, place: int, number: Any, text: Any) -> Statement:
        """Insert a row, or give the one that is there this value in its first column; either way something changes."""
        row = self.row(place, number, text)
        column = self.first("TEXT") or self.first("INT")
        if column is None:
            there = self.keys[place] in self.copies[user].rows
            return self.move(user, place, place) if there else self.insert_key(user, place)
        name = column.name
        rest = f"ON CONFLICT ({self.key_names}) DO UPDATE SET {name} = excluded.{name}"
        sql, params = self._insert([row], self.columns, rest)
        former = self.copies[user].rows.get(self.keys[place])
        new = row if former is None else former | {column.label: row[column.label]}
        return Statement(sql, params, user, lambda model: model.put(user, new))

    def update_one(self, user: str, place: int, number: Any) -> Statement:
        column = self.first("INT")
        if column is None:
            return self.insert_or_ignore(user, place, number, "x")
        text = f"UPDATE {self.name} SET {column.name} = $1 WHERE {self.has_key(place)}"
        row, label = self.copies[user].rows.get(self.keys[place]), column.label
        if row is None:
            return Statement(text, [number], user)
        return Statement(text, [number], user, lambda model: model.put(user, row | {label: number}))

    def update_some(self, user: str, least: int) -> Statement:
        column = self.first("INT")
        if column is None:
            return self.delete(user, [least])
        name, label = column.name, column.label
        text = f"UPDATE {self.name} SET {name} = {name} - 1 WHERE {name} >= {least}"

        def effect(model: TableModel) -> None:
            for row in list(model.copies[user].rows.values()):
                if row[label] is not None and row[label] >= least:
                    model.put(user, row | {label: row[label] - 1})

        return Statement(text, (), user, effect)

    def move(self, user: str, here: int, there: int) -> Statement:
        text = f"UPDATE {self.name} SET {self.set_key(self.literals(there))} WHERE {self.has_key(here)}"
        rows, old, new = self.copies[user].rows, self.keys[here], self.keys[there]
        if old in rows and new in rows and old != new:
            return Statement(text, (), user, None)
        if old not in rows:
            return Statement(text, (), user)
        if old == new:
            return Statement(text, (), user, lambda model: model.put(user, rows[old]))
        return Statement(text, (), user, lambda model: model.put(user, model.take(user, old) | self.keyed(new)))

    def exchange(self, user: str, one: int, other: int) -> Statement:
        """Two rows change their keys with each other."""
        first, second = self.keys[one], self.keys[other]
        if one == other or not {first, second} <= self.copies[user].rows.keys():
            return self.move(user, one, one)
        is_one, is_other = self.has_key(one), self.has_key(other)
        parts = zip(self.literals(one), self.literals(other), strict=True)
        change = self.set_key([f"CASE WHEN {is_one} THEN {right} ELSE {left} END" for left, right in parts])
        text = f"UPDATE {self.name} SET {change} WHERE ({is_one}) OR ({is_other})"

        def effect(model: TableModel) -> None:
            rows = model.take(user, first), model.take(user, second)
            model.put(user, rows[1] | self.keyed(first))
            model.put(user, rows[0] | self.keyed(second))

        return Statement(text, (), user, effect)

    def delete(self, user: str, places: Sequence[int]) -> Statement:
        any_of = " OR ".join(f"({self.has_key(place)})" for place in places)
        if len(self.key) == 1:
            any_of = f"{self.key_names} IN ({', '.join(self.literals(place)[0] for place in places)})"
        gone = {self.keys[place] for place in places} & self.copies[user].rows.keys()
        text = f"DELETE FROM {self.name} WHERE {any_of}"
        return Statement(text, (), user, lambda model: model.take_all(user, gone))

    def delete_all(self, user: str) -> Statement:
        gone = list(self.copies[user].rows)
        return Statement(f"DELETE FROM {self.name}", (), user, lambda model: model.take_all(user, gone))

    def truncate(self) -> Statement:
        def effect(model: TableModel) -> None:
            for copy in (model.copies[owner] for owner in model.owners):
                if copy.changes:
                    copy.rows, copy.deleted, copy.told = {}, {}, {}
                    copy.changes += 1

        return Statement(f"TRUNCATE {self.name}", effect=effect)

    # Statements that change the columns

    def add_column(self, type_name: Type, default: Any) -> Statement:
        """A column of a name that may have been another column's, filled with its default; else one goes."""
        name = self.free_name()
        if name is None:
            return self.drop_column(0)
        column = Column(next(LABELS), name, type_name, default)
        text = f"ALTER TABLE {self.name} ADD COLUMN {name} {type_name}"
        if default is not None:
            text += f" DEFAULT {json.dumps(default)}" if type_name == "INT" else f" DEFAULT '{default}'"

        def effect(model: TableModel) -> None:
            model.columns.append(column)
            for owner in model.owners:
                copy = model.copies[owner]
                for rows in (copy.rows, copy.deleted):
                    rows |= {key: row | {column.label: default} for key, row in rows.items()}

        return Statement(text, effect=effect)

    def drop_column(self, place: int) -> Statement:
        """One of the columns but the key; a column is added where there is no other."""
        others = [column for column in self.columns if not column.is_key]
        if not others:
            return self.add_column("INT", None)
        column = others[place % len(others)]
        text = f"ALTER TABLE {self.name} DROP COLUMN {column.name}"
        return Statement(text, effect=lambda model: model.columns.remove(column))

    def rename_column(self, place: int) -> Statement:
        """Any column; the key's are called k or k2, l or l2, …."""
        column = self.columns[place % len(self.columns)]
        name = self.free_name()
        if column.is_key:
            name = column.told if column.name != column.told else f"{column.told}2"
        if name is None:
            return self.drop_column(place)
        text = f"ALTER TABLE {self.name} RENAME COLUMN {column.name} TO {name}"

        def effect(model: TableModel) -> None:
            model.columns[model.columns.index(column)] = replace(column, name=name)

        return Statement(text, effect=effect)
