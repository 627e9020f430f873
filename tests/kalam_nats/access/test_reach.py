"""What the book of users comes to at the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from login_book import open_database

from kalam.access.book import Book
from kalam.access.model import Command, Grant, Policy, Privilege, Role, User
from kalam.access.rights import Rights
from kalam.names import TableName
from kalam.schema import Column, DataType, StoredOptions, StreamOptions, Table, TableDefinition, TableKind, TypeName
from kalam.storage.log.catalogue import Catalogue
from kalam_nats.access.permissions import Reach, TableReach
from kalam_nats.access.reach import Reaches

OPTIONS = {TableKind.STREAM: StreamOptions(), TableKind.SHARED: StoredOptions(), TableKind.USER: StoredOptions()}


@dataclass
class World:
    """A book and a catalogue; the keys of a policy are those in ``compiled``."""

    book: Book
    catalogue: Catalogue
    compiled: dict[str, tuple[str, ...]]

    async def table(self, name: str, kind: TableKind, *, security: bool = False) -> Table:
        column = Column(column_id=1, name="id", type=DataType(name=TypeName.BIGINT), nullable=False)
        key = () if kind is TableKind.STREAM else ("id",)
        wanted = TableDefinition(
            name=TableName("app", name), kind=kind, columns=(column,), key=key, options=OPTIONS[kind]
        )
        table = await self.catalogue.create_table(wanted)
        if security:
            table = await self.catalogue.set_access(table, owned_by=table.owned_by, row_security=True)
        return table

    async def user(self, name: str, **fields: bool) -> None:
        await self.book.put_user(User(name=name, created_at=datetime.now(UTC), **fields))

    def reach(self, user: str) -> Reach:
        def keys(_: str, table: Table) -> tuple[str, ...] | None:
            return self.compiled.get(table.name.table)

        return Reaches(Rights(self.book, on=True), self.catalogue, keys).of(user)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = open_database(tmp_path)
    book, catalogue = Book(database), Catalogue(database)
    book.load()
    catalogue.load()
    await catalogue.create_namespace("app")
    yield World(book, catalogue, {})
    database.close()


async def grant(world: World, grantee: str, privilege: Privilege, table: Table | None = None) -> None:
    wanted = Grant(privilege, 0, "app") if table is None else Grant(privilege, table.table_id)
    await world.book.grant((grantee,), (wanted,))


async def test_nothing_is_heard_before_it_is_granted(world: World) -> None:
    await world.user("ada")
    await world.table("notes", TableKind.SHARED)
    assert world.reach("ada") == Reach(user="ada")
    assert world.reach("nobody") == Reach(user="nobody")


async def test_select_is_what_is_heard_directly_by_a_role_or_by_everybody(world: World) -> None:
    await world.user("ada")
    await world.book.put_role(Role(name="readers", created_at=datetime.now(UTC)))
    await world.book.add_members("readers", ("ada",))
    names = ("direct", "role", "everybody", "written")
    direct, role, everybody, written = [await world.table(name, TableKind.SHARED) for name in names]
    await grant(world, "ada", Privilege.SELECT, direct)
    await grant(world, "readers", Privilege.SELECT, role)
    await grant(world, "public", Privilege.SELECT, everybody)
    await grant(world, "ada", Privilege.INSERT, written)
    heard = {table.name.table for table in world.reach("ada").tables}
    assert heard == {"direct", "role", "everybody"}


async def test_a_users_own_tables_are_heard_and_user_tables_are_nobodys_raw_events(world: World) -> None:
    await world.user("ada")
    for name, kind in (("mine", TableKind.STREAM), ("private", TableKind.USER)):
        table = await world.table(name, kind)
        await world.catalogue.set_access(table, owned_by="ada", row_security=False)
    assert world.reach("ada").tables == (TableReach(TableName("app", "mine"), True),)


async def test_a_namespace_with_select_is_heard_as_a_whole(world: World) -> None:
    await world.user("ada")
    await grant(world, "ada", Privilege.SELECT)
    assert world.reach("ada").namespaces == frozenset({"app"})
    await world.user("root", admin=True)
    assert world.reach("root").administers
    assert world.reach("root").namespaces == frozenset({"app"})


@pytest.mark.parametrize("admin", [False, True])
async def test_where_policies_hide_rows_a_table_is_hidden_or_heard_by_its_keys(world: World, admin: bool) -> None:
    await world.user("ada", admin=admin)
    hidden, keyed, unnamed = [
        await world.table(name, TableKind.STREAM, security=True) for name in ("hidden", "keyed", "unnamed")
    ]
    await grant(world, "ada", Privilege.SELECT)
    world.compiled = {"keyed": ("k1", "k2"), "unnamed": ("k3",)}
    for table in (hidden, keyed):
        await world.book.put_policy(Policy(table_id=table.table_id, name="p", command=Command.SELECT, using="id > 0"))
    reach = world.reach("ada")
    assert reach.tables == (TableReach(keyed.name, True, ("k1", "k2")),)
    assert reach.hidden == (TableReach(hidden.name, True), TableReach(unnamed.name, True))


async def test_jetstream_is_for_whom_it_was_granted_and_for_no_administrator(world: World) -> None:
    await world.user("svc")
    await world.user("root", admin=True)
    table = await world.table("logs", TableKind.STREAM)
    await grant(world, "svc", Privilege.JETSTREAM, table)
    assert world.reach("svc") == Reach(user="svc", jetstream=(table.name,))
    assert world.reach("root").jetstream == ()
