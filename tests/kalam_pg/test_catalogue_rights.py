"""What a user may not see is not in ``pg_catalog`` either, whichever relation or function is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from catalogue_session import CatalogueSession
from policy_server import PASSWORD, PolicyServer, policy_server

from kalam.errors import TableNotFound
from kalam_pg.catalogue import Catalogue
from kalam_pg.catalogue.relations import relations

pytestmark = pytest.mark.asyncio(loop_scope="module")

HIDDEN = ("bullion", "vault", "keeper", "bars", "an alarm")
MAY = (
    "SELECT has_table_privilege('lab.t', 'SELECT'), has_table_privilege('lab.t', 'INSERT'), "
    "has_any_column_privilege('lab.t', 'UPDATE'), has_schema_privilege('lab', 'CREATE')"
)
NAMES = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace = 'lab'::regnamespace ORDER BY 1"


class People:
    """Sessions of several users on one server, whose catalogue they share."""

    def __init__(self, server: PolicyServer, catalogue: Catalogue) -> None:
        self.server, self.catalogue = server, catalogue

    def session(self, user: str) -> CatalogueSession:
        return CatalogueSession(self.server.running, self.catalogue, user)

    async def sql(self, text: str, user: str = "admin") -> None:
        await self.server.result(user, text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[People]:
    async with policy_server(tmp_path_factory.mktemp("rights")) as server:
        await server.users("ada", "bob", "keeper")
        catalogue = Catalogue(query_time_s=60, rows_max=100_000)
        people = People(server, catalogue)
        await people.sql("CREATE ROLE readers; CREATE NAMESPACE lab; CREATE NAMESPACE vault")
        await people.sql("GRANT CREATE ON NAMESPACE vault TO keeper; GRANT CREATE ON NAMESPACE lab TO bob")
        await people.sql("CREATE TABLE vault.bullion (id INT PRIMARY KEY, bars TEXT)", "keeper")
        await people.sql("COMMENT ON TABLE vault.bullion IS 'an alarm'", "keeper")
        await people.sql("CREATE TABLE lab.t (id INT PRIMARY KEY, v TEXT)", "bob")
        await people.sql("CREATE MATERIALIZED VIEW lab.seen AS SELECT id, v FROM lab.t WHERE id > 41", "bob")
        await people.sql("GRANT readers TO ada; GRANT SELECT ON TABLE lab.t TO readers")
        await people.sql("GRANT SELECT ON TABLE lab.seen TO readers")
        yield people
        await catalogue.aclose()


async def test_no_relation_tells_of_what_is_hidden(people: People) -> None:
    ada, admin = people.session("ada"), people.session("admin")
    told: set[str] = set()
    for relation in relations().values():
        query = f"SELECT * FROM {relation.schema}.{relation.name}"
        assert not [word for word in HIDDEN if word in str(await ada.rows(query))], relation.name
        found = str(await admin.rows(query))
        told |= {word for word in HIDDEN if word in found}
    assert told == set(HIDDEN)


async def test_a_hidden_table_is_one_that_is_not_there(people: People) -> None:
    ada = people.session("ada")
    hidden = next(table.table_id for table in people.session("admin").caller.tables() if table.name.table == "bullion")
    oid = 16384 + hidden * 8
    assert await ada.value("SELECT to_regclass('vault.bullion')") is None
    assert await ada.value("SELECT $1::oid::regclass::text", oid) == str(oid)
    assert await ada.rows(
        "SELECT obj_description($1::oid), pg_get_constraintdef($1::oid + 2), pg_table_is_visible($1::oid), "
        "has_table_privilege($1::oid, 'SELECT'), col_description($1::oid, 2), pg_get_indexdef($1::oid + 1)",
        oid,
    ) == [(None,) * 6]
    with pytest.raises(TableNotFound):
        await ada.value("SELECT has_table_privilege('vault.bullion', 'SELECT')")


async def test_rights_are_those_of_the_moment(people: People) -> None:
    ada, bob = people.session("ada"), people.session("bob")
    assert await ada.rows(MAY) == [(True, False, False, False)]
    assert await bob.rows(MAY) == [(True, True, True, True)]
    await people.sql("GRANT INSERT ON TABLE lab.t TO ada")
    assert await ada.rows(MAY) == [(True, True, False, False)]
    assert await ada.rows(
        "SELECT privilege_type FROM information_schema.table_privileges WHERE table_name = 't' ORDER BY 1"
    ) == [("INSERT",), ("SELECT",)]
    await people.sql("REVOKE INSERT ON TABLE lab.t FROM ada; REVOKE SELECT ON TABLE lab.t FROM readers")
    assert await ada.rows(NAMES) == [("seen",)]
    assert await bob.rows(NAMES) == [("seen",), ("t",)]
    await people.sql("GRANT SELECT ON TABLE lab.t TO readers")
    assert await ada.rows(NAMES) == [("seen",), ("t",)]


async def test_a_materialized_view_is_one_and_its_text_is_its_owners(people: People) -> None:
    query = (
        "SELECT matviewname, relkind, definition, pg_get_viewdef(oid) = definition, has_table_privilege(oid, 'INSERT') "
        "FROM pg_matviews JOIN pg_class ON relname = matviewname"
    )
    assert await people.session("ada").rows(query) == [("seen", "m", None, None, False)]
    ((_, _, definition, same, may),) = await people.session("bob").rows(query)
    assert "41" in definition
    assert (same, may) == (True, False)
    assert await people.session("bob").rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'lab.seen'::regclass AND attgenerated = '' ORDER BY attnum"
    ) == [("id",), ("v",)]


async def test_a_view_is_one_and_is_read_by_its_own_right(people: People) -> None:
    await people.sql("CREATE VIEW lab.few AS SELECT id FROM lab.t WHERE id < 42; GRANT SELECT ON lab.few TO ada", "bob")
    query = (
        "SELECT relkind, definition, v.is_updatable, has_table_privilege(c.oid, 'SELECT'), "
        "has_table_privilege(c.oid, 'DELETE') FROM pg_class c JOIN pg_views ON viewname = relname "
        "JOIN information_schema.views v ON v.table_name = relname WHERE relname = 'few'"
    )
    assert await people.session("ada").rows(query) == [("v", None, "NO", True, False)]
    assert await people.session("bob").rows(query) == [("v", "SELECT id FROM lab.t WHERE id < 42;", "NO", True, False)]
    assert await people.session("ada").rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'lab.few'::regclass"
    ) == [("id",)]
    await people.sql("DROP VIEW lab.few", "bob")
    assert await people.session("ada").value("SELECT to_regclass('lab.few')") is None


async def test_policies_are_told_to_those_whose_tables_they_guard(people: People) -> None:
    await people.sql(
        "CREATE TABLE lab.guarded (id INT PRIMARY KEY, v TEXT); GRANT SELECT ON lab.guarded TO ada; "
        "CREATE POLICY own ON lab.guarded FOR SELECT TO ada, readers USING (v = CURRENT_USER()); "
        "ALTER TABLE lab.guarded ENABLE ROW LEVEL SECURITY",
        "bob",
    )
    query = (
        "SELECT relrowsecurity, polname, polcmd, pg_get_expr(polqual, polrelid), "
        "ARRAY(SELECT rolname FROM pg_roles WHERE oid = ANY (polroles) ORDER BY 1) "
        "FROM pg_class LEFT JOIN pg_policy ON polrelid = pg_class.oid WHERE relname = 'guarded'"
    )
    told = [(True, "own", "r", "v = CURRENT_USER()", ["ada", "readers"])]
    assert await people.session("admin").rows(query) == told
    assert await people.session("ada").rows(query) == [(True, None, None, None, [])]
    await people.sql("CREATE POLICY more ON lab.guarded FOR INSERT WITH CHECK (id > 0)", "bob")
    assert await people.session("bob").rows(
        "SELECT policyname, cmd, roles, with_check FROM pg_policies ORDER BY 1"
    ) == [
        ("more", "INSERT", ["public"], "id > 0"),
        ("own", "SELECT", ["ada", "readers"], None),
    ]
    await people.sql("DROP TABLE lab.guarded", "bob")


async def test_everybody_sees_themselves_and_administrators_everybody(people: People) -> None:
    query = "SELECT rolname, rolsuper, rolcanlogin FROM pg_roles ORDER BY 1"
    assert await people.session("ada").rows(query) == [
        ("ada", False, True),
        ("bob", False, True),  # who owns what she sees
        ("readers", False, False),
    ]
    assert [row[0] for row in await people.session("admin").rows(query)] == ["ada", "admin", "bob", "keeper", "readers"]
    member = "SELECT r.rolname FROM pg_auth_members JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member"
    assert await people.session("ada").rows(f"{member} WHERE m.rolname = current_user") == [("readers",)]
    assert PASSWORD not in str(await people.session("admin").rows("SELECT * FROM pg_authid"))
