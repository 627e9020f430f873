"""What may stand in a policy, and what the policies of a table come to for somebody."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from kalam.access.book import Book
from kalam.access.conditions import check_condition, keys_of, using, written
from kalam.access.model import Command, Policy, Role, User
from kalam.access.rights import Rights
from kalam.errors import ColumnNotFound, KalamError, SyntaxFault, Unsupported
from kalam.names import TableName
from kalam.schema import ROW_ID, Column, DataType, StoredOptions, Table, TableKind, TypeName

TYPES = {
    "owner": TypeName.TEXT,
    "n": TypeName.INT,
    "id": TypeName.UUID,
    "open": TypeName.BOOLEAN,
    "day": TypeName.DATE,
    "at": TypeName.TIMESTAMP,
    ROW_ID: TypeName.BIGINT,
}
UUID = "00000001-0000-4000-8000-0000000000ab"


def table(subject_key: str | None = None) -> Table:
    columns = tuple(
        Column(column_id=number, name=name, type=DataType(name=kind))
        for number, (name, kind) in enumerate(TYPES.items(), 1)
    )
    return Table(
        name=TableName("app", "notes"),
        kind=TableKind.SHARED,
        columns=columns,
        key=(ROW_ID,),
        options=replace(StoredOptions(), subject_key=subject_key),
        table_id=7,
        schema_version=1,
        created_at=datetime.now(UTC),
        row_security=True,
    )


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("owner = CURRENT_USER()", {"owner"}),
        ("OWNER IN ('a', 'b') AND n > 3", {"owner", "n"}),
        ('"owner" = ANY(CURRENT_ROLES()) -- whose it is', {"owner"}),
        ("TRUE", set()),
        ("CASE WHEN open THEN n ELSE -1 END > 0", {"open", "n"}),
        ("at < now()", {"at"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_tells_which_columns_are_named(text: str, columns: set[str]) -> None:
    assert check_condition(table(), text) == columns


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("owner IN (SELECT owner FROM app.other)", Unsupported, "sub-query"),
        ("EXISTS (SELECT 1)", Unsupported, "sub-query"),
        ("n > random()", Unsupported, "random()"),
        ("id = UUID ()", Unsupported, "uuid()"),
        ("n = max(n)", Unsupported, "aggregate"),
        ("row_number() OVER () = 1", Unsupported, "window"),
        ("n = $1", Unsupported, "parameters"),
        ("notes.n = 1", Unsupported, "stand by themselves"),
        ("secret = 1", ColumnNotFound, "'secret'"),
        ("_updated > now()", ColumnNotFound, "'_updated'"),
        (f"{ROW_ID} = 1", ColumnNotFound, ROW_ID),
        ("n = 1, n = 2", SyntaxFault, ""),
        ("n = 1) OR (n = 2", SyntaxFault, ""),
        ("", SyntaxFault, ""),
        ("*", SyntaxFault, ""),
        ("n = 'a", SyntaxFault, ""),
    ],
    ids=str,
)
def test_what_cannot_stand_in_a_policy_is_told(text: str, error: type[KalamError], part: str) -> None:
    with pytest.raises(error) as raised:
        check_condition(table(), text)
    assert part in raised.value.detail


@pytest.fixture
async def rights(book: Book) -> Rights:
    for name in ("ada", "ben"):
        await book.put_user(User(name=name, created_at=datetime.now(UTC)))
    for name in ("readers", "team"):
        await book.put_role(Role(name=name, created_at=datetime.now(UTC)))
    await book.add_members("readers", ("ada",))
    await book.add_members("team", ("readers",))
    return Rights(book, on=True)


async def policy(rights: Rights, name: str, using: str | None, **fields: Any) -> None:
    await rights.book.put_policy(Policy(table_id=7, name=name, using=using, **fields))


def visible(rights: Rights, user: str, *commands: Command) -> str | None:
    found = using(rights, user, table(), commands or (Command.SELECT,))
    return None if found is None else found.text.replace("\n", "")


async def test_without_a_policy_nothing_is_visible_and_without_security_everything(rights: Rights) -> None:
    assert visible(rights, "ada") == "FALSE"
    assert using(rights, "ada", replace(table(), row_security=False), (Command.SELECT,)) is None
    assert using(Rights(rights.book, on=False), "ada", table(), (Command.SELECT,)) is None


async def test_permissive_policies_are_joined_by_or_for_whom_and_what_they_are(rights: Rights) -> None:
    await policy(rights, "own", "owner = CURRENT_USER()")
    await policy(rights, "open", "open", command=Command.SELECT, grantees=("team",))
    await policy(rights, "one", "n = 1", command=Command.DELETE)
    assert visible(rights, "ben") == "owner = 'ben'"
    assert visible(rights, "ada") == "(owner = 'ada') OR (open)"
    assert visible(rights, "ada", Command.DELETE, Command.SELECT) == (
        "((owner = 'ada') OR (n = 1)) AND ((owner = 'ada') OR (open))"
    )
    await policy(rights, "all", " TRUE ", command=Command.SELECT, grantees=("ben",))
    assert visible(rights, "ben") is None


async def test_the_roles_of_somebody_are_a_list_of_texts(rights: Rights) -> None:
    await policy(rights, "role", "array_has(CURRENT_ROLES(), owner)")
    assert visible(rights, "ada") == "array_has(make_array('readers', 'team'), owner)"
    assert visible(rights, "ben") == "array_has(arrow_cast(make_array(), 'List(Utf8)'), owner)"


async def test_a_check_falls_back_to_using_and_a_statement_that_reads_has_to_see_what_it_writes(rights: Rights) -> None:
    await policy(rights, "write", "n > 1", command=Command.UPDATE, check="n > 2")
    await policy(rights, "see", "open", command=Command.SELECT)
    await policy(rights, "add", None, command=Command.INSERT, check="owner = CURRENT_USER()")

    def text(command: Command, *, reads: bool) -> str:
        found = written(rights, "ada", table(), command, reads=reads)
        assert found is not None
        return found.text.replace("\n", "")

    assert text(Command.UPDATE, reads=False) == "n > 2"
    assert text(Command.UPDATE, reads=True) == "(n > 2) AND (open)"
    assert text(Command.INSERT, reads=False) == "owner = 'ada'"
    await policy(rights, "write", "n > 1", command=Command.UPDATE)
    assert text(Command.UPDATE, reads=False) == "n > 1"


@pytest.mark.parametrize(
    ("column", "texts", "keys"),
    [
        ("owner", ["owner = CURRENT_USER()"], ("ada",)),
        ("owner", ["CURRENT_USER() = owner"], ("ada",)),
        ("owner", ["owner IN ('b', 'a')", "owner = 'c'"], ("a", "b", "c")),
        ("owner", ["(owner = 'a')"], ("a",)),
        ("n", ["n = 3"], (3,)),
        ("n", ["n IN (2, -1)"], (-1, 2)),
        ("id", [f"id = '{UUID.upper()}'"], (UUID,)),
        ("open", ["open = true"], (True,)),
        ("day", ["day = '2026-03-01'"], (date(2026, 3, 1),)),
        ("day", ["day IN (DATE '2026-03-01', '0001-01-01')"], (date(1, 1, 1), date(2026, 3, 1))),
        ("day", ["day = '2026-02-30'"], None),
        ("owner", ["owner = DATE '2026-03-01'"], None),
        ("owner", ["owner = ''"], None),
        ("owner", ["owner IN ('a', '')"], None),
        ("owner", ["owner IN ('a', NULL)"], None),
        ("owner", ["owner = 'a' OR n = 1"], None),
        ("owner", ["owner = 'a' AND n = 1"], None),
        ("owner", ["owner <> 'a'"], None),
        ("owner", ["n = 1"], None),
        ("owner", ["owner = 'a'", "open"], None),
        ("owner", ["true"], None),
        ("owner", ["lower(owner) = 'a'"], None),
        ("owner", [], None),
        (None, ["owner = 'a'"], None),
        ("n", [f"n IN ({', '.join(map(str, range(100)))})"], tuple(sorted(range(100), key=str))),
        ("n", [f"n IN ({', '.join(map(str, range(101)))})"], None),
    ],
    ids=str,
)
async def test_which_policies_come_to_keys(
    rights: Rights, column: str | None, texts: list[str], keys: tuple[object, ...] | None
) -> None:
    for number, text in enumerate(texts):
        await policy(rights, f"p{number}", text)
    assert keys_of(rights, "ada", table(column)) == keys


async def test_a_policy_that_cannot_be_read_any_more_hides_everything(rights: Rights) -> None:
    await policy(rights, "gone", "gone = 1")
    assert visible(rights, "ada") == "FALSE"
    await policy(rights, "own", "owner = 'ada'")
    assert visible(rights, "ada") == "owner = 'ada'"
