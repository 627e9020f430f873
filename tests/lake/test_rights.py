"""Who reads which table by the Iceberg catalogue, on a server that asks who one is: what one may SELECT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from lake_readers import duckdb_connection
from patience import PATIENCE_S
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import NoSuchTableError
from server_process import ServerProcess

PASSWORD = "a right good password"


class Guarded:
    """A server with authentication, and the token of each of its users."""

    def __init__(self, server: ServerProcess) -> None:
        self.server, self.tokens = server, dict[str, str]()

    def sql(self, text: str, *params: Any, user: str = "admin") -> list[list[Any]]:
        secret = self.tokens.get(user, PASSWORD)
        body = {"sql": text, "params": params}
        answer = httpx.post(f"{self.server.http_url}/v1/sql", json=body, auth=(user, secret), timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        rows: list[list[Any]] = answer.json()["results"][-1]["rows"]
        return rows

    def catalogue(self, user: str) -> RestCatalog:
        return RestCatalog("kalam", uri=f"{self.server.http_url}/iceberg", token=self.tokens[user])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    server = ServerProcess(tmp_path_factory.mktemp("lake") / "data", ("--auth", "on")).start(
        KALAM_ADMIN_PASSWORD=PASSWORD
    )
    found = Guarded(server)
    for name in ("ada", "ben"):
        found.sql(f"CREATE USER {name} PASSWORD $1", PASSWORD)
    found.sql("CREATE NAMESPACE lab; CREATE NAMESPACE shop")
    found.sql("CREATE TABLE lab.t (id INT PRIMARY KEY); CREATE TABLE lab.other (id INT PRIMARY KEY)")
    found.sql("CREATE TABLE shop.secret (id INT PRIMARY KEY); CREATE USER TABLE lab.notes (id INT PRIMARY KEY)")
    found.sql("INSERT INTO lab.t VALUES (1); INSERT INTO lab.notes VALUES (2); FLUSH ALL TABLES; REFRESH LAKE")
    found.sql("GRANT SELECT ON TABLE lab.t TO ada; GRANT INSERT ON TABLE lab.other TO ada")
    found.sql("GRANT ALL ON TABLE lab.notes TO PUBLIC")
    for name in ("admin", "ada", "ben"):
        [[found.tokens[name], *_]] = found.sql(f"CREATE TOKEN 'lake' FOR {name}")
    yield found
    server.kill()


def test_one_is_told_of_the_tables_that_one_may_select_from(guarded: Guarded) -> None:
    ada, admin = guarded.catalogue("ada"), guarded.catalogue("admin")
    assert ada.list_tables("lab") == [("lab", "t")]
    assert ada.list_namespaces() == [("lab",)]
    assert sorted(admin.list_tables("lab")) == [("lab", "notes"), ("lab", "other"), ("lab", "t")]
    assert admin.load_table("lab.notes").scan().to_arrow().to_pylist()[0]["user_id"] == "admin"
    assert ada.load_table("lab.t").scan().to_arrow().num_rows == 1
    for name in ("lab.other", "lab.notes", "shop.secret", "lab.nothing"):
        with pytest.raises(NoSuchTableError):
            ada.load_table(name)
    assert [row[:2] for row in guarded.sql("SHOW LAKE", user="ada")] == [["lab", "t"]]
    with pytest.raises(NoSuchTableError):
        guarded.catalogue("ben").load_table("lab.t")


def test_duckdb_reads_with_a_token(guarded: Guarded) -> None:
    place, token = f"{guarded.server.http_url}/iceberg", guarded.tokens["ada"]
    with duckdb_connection().cursor() as duck:
        duck.execute(f"ATTACH '' AS own (TYPE iceberg, ENDPOINT '{place}', TOKEN '{token}')")
        try:
            assert duck.sql("SELECT id FROM own.lab.t").fetchall() == [(1,)]
            with pytest.raises(Exception, match="does not exist"):
                duck.sql("SELECT * FROM own.lab.other")
        finally:
            duck.execute("DETACH own")


def test_a_right_that_is_taken_ends_it(guarded: Guarded) -> None:
    guarded.sql("GRANT SELECT ON TABLE lab.other TO ben")
    assert guarded.catalogue("ben").list_tables("lab") == [("lab", "other")]
    guarded.sql("REVOKE SELECT ON TABLE lab.other FROM ben")
    with pytest.raises(NoSuchTableError):
        guarded.catalogue("ben").load_table("lab.other")


@pytest.mark.parametrize("path", ["/v1/config", "/v1/namespaces", "/v1/namespaces/lab/tables/t"])
@pytest.mark.parametrize("token", [None, "kalam_0123456789ab_nonsense"], ids=["none", "wrong"])
def test_strangers_are_told_nothing(guarded: Guarded, path: str, token: str | None) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{guarded.server.http_url}/iceberg{path}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "NotAuthorizedException")
