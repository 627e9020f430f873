"""Policies by SQL: made, dropped and shown, and what else an ALTER, a DROP and a GRANT do with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guarded_world import Asker, World, open_world

TABLE = "lab.t"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    opened = open_world(tmp_path_factory.mktemp("policies"))
    yield opened
    opened.close()
    opened.server.stop()


@pytest.fixture
def owner(world: World) -> Iterator[Asker]:
    """The owner of ``lab.t``, on which no policy is."""
    owner = world.asker("owner")
    yield owner
    for policy, namespace, table, *_ in owner.rows("SHOW POLICIES"):
        owner.rows(f"DROP POLICY {policy} ON {namespace}.{table}")


def test_a_policy_is_shown_to_the_owner_and_administrators_as_it_was_written(world: World, owner: Asker) -> None:
    owner.rows("CREATE POLICY own ON lab.t TO reader, readers USING ( v = CURRENT_USER() /* hers */ OR id = 1 )")
    owner.rows("CREATE POLICY added ON lab.t FOR INSERT WITH CHECK (id > 0)")
    owner.rows("CREATE POLICY changed ON lab.t FOR UPDATE TO writer USING (true) WITH CHECK (id > 0)")
    shown = [
        ["added", "lab", "t", "INSERT", "public", None, "id > 0", False],
        ["changed", "lab", "t", "UPDATE", "writer", "true", "id > 0", False],
        ["own", "lab", "t", "ALL", "reader, readers", "v = CURRENT_USER() /* hers */ OR id = 1", None, False],
    ]
    assert owner.rows("SHOW POLICIES") == shown
    assert owner.rows("SHOW POLICIES ON lab.t") == shown
    assert world.asker("admin").rows("SHOW POLICIES ON TABLE lab.t") == shown
    assert world.asker("reader").rows("SHOW POLICIES ON lab.t") == []
    assert world.asker("reader").rows("SHOW POLICIES") == []


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("CREATE POLICY p ON lab.t USING (w = 1)", "column_not_found"),
        ("CREATE POLICY p ON lab.t USING (id)", "invalid_value"),
        ("CREATE POLICY p ON lab.t USING (random() > 0.5)", "unsupported"),
        ("CREATE POLICY p ON lab.t USING (id IN (SELECT 1))", "unsupported"),
        ("CREATE POLICY p ON lab.t USING (count(*) > 1)", "unsupported"),
        ("CREATE POLICY p ON lab.t USING (id = $1)", "unsupported"),
        ("CREATE POLICY p ON lab.t USING (no_such(id))", "unsupported"),
        ("CREATE POLICY p ON lab.t USING (id = )", "syntax_error"),
        ("CREATE POLICY p ON lab.t USING (id = 1) OR (true)", "syntax_error"),
        ("CREATE POLICY p ON lab.t TO nobody USING (true)", "not_found"),
        ("CREATE POLICY p ON lab.t USING (true) WITH CHECK (w = 1)", "column_not_found"),
        ("CREATE POLICY p ON lab.nothing USING (true)", "table_not_found"),
        ("CREATE POLICY p ON lab.notes USING (true)", "unsupported"),
        ("CREATE POLICY taken ON lab.t USING (false)", "already_exists"),
        ("CREATE POLICY p ON system.tables USING (true)", "namespace_not_found"),
        ("ALTER TABLE lab.notes ENABLE ROW LEVEL SECURITY", "unsupported"),
        ("DROP POLICY p ON lab.t", "not_found"),
        ("DROP POLICY taken ON lab.nothing", "table_not_found"),
        ("SHOW POLICIES ON lab.nothing", "table_not_found"),
    ],
)
def test_what_cannot_be_a_policy_changes_nothing(owner: Asker, statement: str, code: str) -> None:
    owner.rows("CREATE POLICY taken ON lab.t USING (true)")
    before = owner.rows("SHOW POLICIES")
    assert owner.code(statement) == code
    assert owner.rows("SHOW POLICIES") == before


def test_an_error_tells_where_in_the_statement(owner: Asker) -> None:
    for wrong in ("nothing = 2", "random() > 1"):
        problem = owner.answer(f"SELECT 1;\nCREATE POLICY p ON lab.t\n  USING (id = 1 OR\n    {wrong})").json()
        assert (problem["statement"], problem["line"], problem["column"]) == (2, 4, 5), wrong
    problem = owner.answer("CREATE POLICY p ON lab.t USING (id = 1 OR random() > 1)").json()
    assert (problem["line"], problem["column"]) == (1, 43)


def test_an_expression_has_so_many_characters(owner: Asker) -> None:
    assert owner.code(f"CREATE POLICY p ON lab.t USING (v = '{'x' * 20_000}')") == "too_large"


def test_a_table_has_so_many_policies(owner: Asker) -> None:
    text = ";".join(f"CREATE POLICY p{number} ON lab.spare USING (id = {number})" for number in range(100))
    owner.rows(text)
    assert owner.code("CREATE POLICY one_more ON lab.spare USING (true)") == "unsupported"
    owner.rows(";".join(f"DROP POLICY p{number} ON lab.spare" for number in range(100)))


def test_dropping_what_is_not_there_is_skipped_where_that_is_asked(owner: Asker) -> None:
    for statement in ("DROP POLICY IF EXISTS p ON lab.t", "DROP POLICY IF EXISTS p ON lab.nothing"):
        assert "skipped" in owner.answer(statement).json()["results"][0]["message"]


def test_the_audit_tells_of_policies_and_of_no_value(world: World, owner: Asker) -> None:
    owner.rows("CREATE POLICY told ON lab.t USING (v = 'a secret of hers'); DROP POLICY told ON lab.t")
    assert owner.code("CREATE POLICY told ON lab.t USING (w = 'a secret of hers')") == "column_not_found"
    assert world.asker("reader").code("DROP POLICY told ON lab.t") == "permission_denied"
    told = world.admin.rows("SELECT user, action, object, outcome FROM system.audit WHERE object = 'told on lab.t'")
    assert told == [
        ["owner", "CREATE POLICY", "told on lab.t", "ok"],
        ["owner", "DROP POLICY", "told on lab.t", "ok"],
        ["owner", "CREATE POLICY", "told on lab.t", "column_not_found"],
        ["reader", "DROP POLICY", "told on lab.t", "permission_denied"],
    ]
    assert "a secret" not in str(world.admin.rows("SELECT * FROM system.audit"))


def test_a_column_that_a_policy_names_stays_and_is_followed_when_it_is_renamed(owner: Asker) -> None:
    owner.rows('CREATE TABLE lab.altered (id INT PRIMARY KEY, who TEXT, kind TEXT, date DATE, "order" INT, spare INT)')
    owner.rows(
        'CREATE POLICY own ON lab.altered USING (Who = CURRENT_USER() OR "order" = 1 AND CAST(date AS DATE) > date'
        " OR upper(kind) = 'who' /* who */)"
    )
    owner.rows("CREATE POLICY add ON lab.altered FOR INSERT WITH CHECK (kind IS NOT NULL)")
    dropped = owner.answer("ALTER TABLE lab.altered DROP COLUMN kind").json()
    assert dropped["code"] == "table_in_use"
    assert "add" in dropped["detail"]
    assert "own" in dropped["detail"]
    owner.rows("ALTER TABLE lab.altered DROP COLUMN spare")
    for name, new in (("who", "end"), ("date", "day"), ("order", "rank"), ("kind", "sort")):
        owner.rows(f'ALTER TABLE lab.altered RENAME COLUMN "{name}" TO "{new}"')
    assert [row[5:7] for row in owner.rows("SHOW POLICIES ON lab.altered")] == [
        [None, '"sort" IS NOT NULL'],
        [
            '"end" = CURRENT_USER() OR "rank" = 1 AND CAST("day" AS DATE) > "day" OR upper("sort") = \'who\'',
            None,
        ],
    ]
    assert owner.code('ALTER TABLE lab.altered DROP COLUMN "end"') == "table_in_use"
    owner.rows('DROP POLICY own ON lab.altered; ALTER TABLE lab.altered DROP COLUMN "end"')
    owner.rows("DROP TABLE lab.altered")


def test_policies_end_with_their_table(owner: Asker) -> None:
    owner.rows("CREATE TABLE lab.gone (id INT PRIMARY KEY); CREATE POLICY own ON lab.gone USING (id = 1)")
    owner.rows("DROP TABLE lab.gone; CREATE TABLE lab.gone (id INT PRIMARY KEY)")
    assert owner.rows("SHOW POLICIES ON lab.gone") == []
    owner.rows("DROP TABLE lab.gone")


def test_who_is_dropped_is_in_no_policy(world: World, owner: Asker) -> None:
    world.admin.rows("CREATE USER eve; CREATE ROLE pack")
    owner.rows("CREATE POLICY both ON lab.t TO eve, pack, reader USING (true)")
    owner.rows("CREATE POLICY hers ON lab.t TO eve USING (true)")
    world.admin.rows("DROP USER eve; DROP ROLE pack")
    assert [row[4] for row in owner.rows("SHOW POLICIES")] == ["reader", ""]
    world.admin.rows("CREATE USER eve; DROP USER eve")
    assert [row[4] for row in owner.rows("SHOW POLICIES")] == ["reader", ""]


def test_what_is_done_for_another_is_not_done_to_policies(world: World) -> None:
    for statement in ("CREATE POLICY p ON lab.t USING (true)", "ALTER TABLE lab.t DISABLE ROW LEVEL SECURITY"):
        assert world.asker("admin").code(f"EXECUTE AS USER 'owner' {statement}") == "unsupported"
