"""A table as a dictionary: what statements make of it, with its columns and what its change feed tells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

KEYS: dict[str, list[Any]] = {
    "BIGINT": [-(2**63), -1, 0, 1, 2, 2**63 - 1],
    "TEXT": ["", "a", "A", "a ", "ä", "b"],
    "DATE": ["0001-01-01", "1969-12-31", "1970-01-01", "2026-02-28", "2026-03-01", "9999-12-31"],
    "DECIMAL(12,2)": ["-10.00", "-2.50", "0.00", "0.10", "2.50", "10.00"],
    "UUID": [f"{n:08x}-0000-4000-8000-{n * 7919:012x}" for n in (9, 8, 1, 2, 3, 4)],
}
"""Six keys of each type, which the statements name by their places."""

Kind = Literal["SHARED", "USER"]
Type = Literal["INT", "TEXT"]
Values = dict[str, Any]
Row = dict[int, Any]
KEY = 0
LABELS = itertools.count(10)


@dataclass(frozen=True)
class Column:
    """A column under its present name; ``label`` tells it from all that ever had this name. The key's is 0."""

    label: int
    name: str
    type: str
    default: Any = None


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
    key_type: str
    columns: list[Column] = field(default_factory=list)
    copies: dict[str, CopyModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.columns:
            self.columns = [Column(1, "a", "INT"), Column(KEY, "k", self.key_type), Column(2, "b", "TEXT")]
            shared = CopyModel()
            self.copies = {"ann": shared, "bob": CopyModel() if self.kind == "USER" else shared}

    @property
    def keys(self) -> list[Any]:
        return KEYS[self.key_type]

    @property
    def key(self) -> Column:
        return next(column for column in self.columns if column.label == KEY)

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
        return next((column for column in self.columns if column.type == type_name and column.label != KEY), None)

    def literal(self, place: int) -> str:
        """A key as an expression of its type, which a comparison needs."""
        key_type = "TEXT" if self.key_type == "UUID" else self.key_type
        return f"CAST('{self.keys[place]}' AS {key_type})"

    def create(self) -> str:
        return f"CREATE {self.kind} TABLE {self.name} (a INT, k {self.key_type} NOT NULL, b TEXT, PRIMARY KEY (k))"

    def shown(self, rows: dict[Any, Row]) -> list[list[Any]]:
        """Rows as a SELECT of all columns gives them, in no order."""
        return [[row[column.label] for column in self.columns] for row in rows.values()]

    def row(self, place: int, number: Any, text: Any) -> Row:
        """A row with this number and this text in every column that takes one."""
        values = {"INT": number, "TEXT": text}
        row = {column.label: values.get(column.type) for column in self.columns}
        return row | {KEY: self.keys[place]}

    # What statements do to a copy

    def put(self, user: str, row: Row) -> None:
        copy, key = self.copies[user], row[KEY]
        copy.rows[key] = row
        copy.deleted.pop(key, None)
        copy.told[key] = {"k" if column.label == KEY else column.name: row[column.label] for column in self.columns}
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
        keys = [row[KEY] for row in named]
        if len(set(keys)) < len(keys) or not self.copies[user].rows.keys().isdisjoint(keys):
            return Statement(text, params, user, None)
        return Statement(text, params, user, lambda model: model.put_all(user, named))

    def insert_key(self, user: str, place: int) -> Statement:
        """A row of which only the key is given; the rest are defaults."""
        row = {column.label: column.default for column in self.columns} | {KEY: self.keys[place]}
        text, params = self._insert([row], [self.key])
        taken = row[KEY] in self.copies[user].rows
        return Statement(text, params, user, None if taken else lambda model: model.put(user, row))

    def insert_or_ignore(self, user: str, place: int, number: Any, text: Any) -> Statement:
        row = self.row(place, number, text)
        sql, params = self._insert([row], self.columns, f"ON CONFLICT ({self.key.name}) DO NOTHING")
        if row[KEY] in self.copies[user].rows:
            return Statement(sql, params, user)
        return Statement(sql, params, user, lambda model: model.put(user, row))

    def upsert(self, user: str, place: int, number: Any, text: Any) -> Statement:
        """Insert a row, or give the one that is there this value in its first column; either way something changes."""
        row = self.row(place, number, text)
        column = self.first("TEXT") or self.first("INT")
        if column is None:
            return self.move(user, place, place) if row[KEY] in self.copies[user].rows else self.insert_key(user, place)
        name = column.name
        rest = f"ON CONFLICT ({self.key.name}) DO UPDATE SET {name} = excluded.{name}"
        sql, params = self._insert([row], self.columns, rest)
        former = self.copies[user].rows.get(row[KEY])
        new = row if former is None else former | {column.label: row[column.label]}
        return Statement(sql, params, user, lambda model: model.put(user, new))

    def update_one(self, user: str, place: int, number: Any) -> Statement:
        column = self.first("INT")
        if column is None:
            return self.insert_or_ignore(user, place, number, "x")
        text = f"UPDATE {self.name} SET {column.name} = $1 WHERE {self.key.name} = {self.literal(place)}"
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
        key = self.key.name
        text = f"UPDATE {self.name} SET {key} = {self.literal(there)} WHERE {key} = {self.literal(here)}"
        rows, old, new = self.copies[user].rows, self.keys[here], self.keys[there]
        if old in rows and new in rows and old != new:
            return Statement(text, (), user, None)
        if old not in rows:
            return Statement(text, (), user)
        if old == new:
            return Statement(text, (), user, lambda model: model.put(user, rows[old]))
        return Statement(text, (), user, lambda model: model.put(user, model.take(user, old) | {KEY: new}))

    def exchange(self, user: str, one: int, other: int) -> Statement:
        """Two rows change their keys with each other."""
        first, second, key = self.keys[one], self.keys[other], self.key.name
        if one == other or not {first, second} <= self.copies[user].rows.keys():
            return self.move(user, one, one)
        left, right = self.literal(one), self.literal(other)
        change = f"CASE WHEN {key} = {left} THEN {right} ELSE {left} END"
        text = f"UPDATE {self.name} SET {key} = {change} WHERE {key} IN ({left}, {right})"

        def effect(model: TableModel) -> None:
            rows = model.take(user, first), model.take(user, second)
            model.put(user, rows[1] | {KEY: first})
            model.put(user, rows[0] | {KEY: second})

        return Statement(text, (), user, effect)

    def delete(self, user: str, places: Sequence[int]) -> Statement:
        listed = ", ".join(map(self.literal, places))
        gone = {self.keys[place] for place in places} & self.copies[user].rows.keys()
        text = f"DELETE FROM {self.name} WHERE {self.key.name} IN ({listed})"
        return Statement(text, (), user, lambda model: model.take_all(user, gone))

    def delete_all(self, user: str) -> Statement:
        gone = list(self.copies[user].rows)
        return Statement(f"DELETE FROM {self.name}", (), user, lambda model: model.take_all(user, gone))

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
        others = [column for column in self.columns if column.label != KEY]
        if not others:
            return self.add_column("INT", None)
        column = others[place % len(others)]
        text = f"ALTER TABLE {self.name} DROP COLUMN {column.name}"
        return Statement(text, effect=lambda model: model.columns.remove(column))

    def rename_column(self, place: int) -> Statement:
        """Any column; the key is called k or k2."""
        column = self.columns[place % len(self.columns)]
        name = {"k": "k2", "k2": "k"}.get(column.name) or self.free_name()
        if name is None:
            return self.drop_column(place)
        text = f"ALTER TABLE {self.name} RENAME COLUMN {column.name} TO {name}"

        def effect(model: TableModel) -> None:
            model.columns[model.columns.index(column)] = replace(column, name=name)

        return Statement(text, effect=effect)
