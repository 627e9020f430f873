"""Who asks, while authentication is on: every way to say it, and every way to say it wrongly."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_door import PASSWORD, Door, open_door
from patience import PATIENCE_S
from prometheus_client import Counter

from kalam.access.secrets import make_secret


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as door:
        await door.user("admin", admin=True)
        await door.user("ada")
        yield door


def basic(user: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code") if answer.content else None


# Basic and Bearer.


async def test_a_password_and_a_token_say_who_asks(door: Door) -> None:
    token = await door.token("ada")
    for headers in (basic("ada"), bearer(token), basic("ada", token), basic("ada") | {"X-Kalam-User": "ada"}):
        answer = await door.client.get("/v1/me", headers=headers)
        assert answer.json() == {
            "user": "ada",
            "actor": None,
            "roles": [],
            "admin": False,
            "how": "password" if headers["Authorization"] == basic("ada")["Authorization"] else "token",
            "authentication": True,
        }
    answer = await door.client.post("/v1/sql", json={"sql": "who"}, headers=basic("ada"))
    assert answer.status_code == 200
    assert door.asked[-1].user == "ada"
    assert (door.asked[-1].actor, door.asked[-1].how, door.asked[-1].address) == (None, "password", "127.0.0.1")


async def test_a_password_may_have_colons_and_any_character(door: Door) -> None:
    await door.user("eve", "päß:wort:✓ ")
    assert (await door.client.get("/v1/me", headers=basic("eve", "päß:wort:✓ "))).json()["user"] == "eve"


MALFORMED = {
    "nothing": "",
    "a scheme alone": "Basic",
    "blanks": "Basic   x",
    "another scheme": "Digest username=ada",
    "no base64": "Basic !!!!",
    "no colon": "Basic " + base64.b64encode(b"ada").decode(),
    "no UTF-8": "Basic " + base64.b64encode(b"ada:\xff\xfe").decode(),
    "a token that is none": "Bearer abc",
    "Bearer alone": "Bearer",
    "a session as a token": "Bearer session_0123456789ab_" + "x" * 43,
    "NUL": "Basic " + base64.b64encode(b"ada\0:correct horse").decode(),
    "long": "Basic " + base64.b64encode(b"ada:" + b"x" * 9_000).decode(),
    "a name that is none": "Basic " + base64.b64encode("ädä/../:correct horse".encode()).decode(),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_malformed_is_nobodys(door: Door, case: str) -> None:
    answer = await door.client.get("/v1/me", headers={"Authorization": MALFORMED[case]})
    assert code(answer) == (401, "unauthenticated")
    assert "horse" not in answer.text


async def test_a_head_of_any_length_is_refused(door: Door) -> None:
    for length in (10_000, 70_000, 200_000):  # past 16 KiB it depends on how it comes in pieces
        answer = await door.client.get("/v1/me", headers={"Authorization": "Bearer " + "x" * length})
        assert answer.status_code in ((401,) if length < 16_000 else (400, 401))


async def test_two_authorizations_are_none(door: Door) -> None:
    twice = [("Authorization", basic("ada")["Authorization"]), ("Authorization", basic("admin")["Authorization"])]
    assert code(await door.client.get("/v1/me", headers=twice)) == (401, "unauthenticated")


async def test_wrong_unknown_locked_and_expired_read_alike(door: Door) -> None:
    await door.user("locked", locked=True)
    await door.user("late", valid_until=door.clock.now() - timedelta(seconds=1))
    answers = [
        (await door.client.get("/v1/me", headers=headers))
        for headers in (basic("ada", "wrong horse"), basic("nobody"), basic("locked"), basic("late"))
    ]
    assert {code(answer) for answer in answers} == {(401, "unauthenticated")}
    assert len({answer.text for answer in answers}) == 1


async def test_401_says_how_to_come_in_and_opens_no_dialog_in_a_browser(door: Door) -> None:
    plain = await door.client.get("/v1/me")
    assert plain.headers.get_list("www-authenticate") == ['Basic realm="Kalam"', 'Bearer realm="Kalam"']
    page = await door.client.get("/v1/me", headers={"Sec-Fetch-Mode": "cors"})
    assert page.headers.get_list("www-authenticate") == ['Bearer realm="Kalam"']
    sql = await door.client.post("/v1/sql", json={"sql": "who"}, headers={"Sec-Fetch-Mode": "cors"})
    assert (sql.status_code, sql.headers.get_list("www-authenticate")) == (401, ['Bearer realm="Kalam"'])


async def test_failures_slow_down_whom_they_are_of_and_not_who_was_let_in(door: Door) -> None:
    await door.client.get("/v1/me", headers=basic("ada"))
    answers = [await door.client.get("/v1/me", headers=basic("ada", f"wrong horse {n}")) for n in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 4 + [429] * 2
    assert answers[4].headers["retry-after"] == "1"
    assert code(answers[4]) == (429, "too_busy")
    assert (await door.client.get("/v1/me", headers=basic("ada"))).status_code == 200
    assert (await door.client.get("/v1/me", headers=basic("admin"))).status_code == 200


# For others.


async def test_only_an_administrator_asks_for_others(door: Door) -> None:
    other = {"X-Kalam-User": "ada"}
    answer = await door.client.post("/v1/sql", json={"sql": "who"}, headers=basic("admin") | other)
    assert answer.status_code == 200
    assert (door.asked[-1].user, door.asked[-1].actor, door.asked[-1].rights_of) == ("ada", "admin", "admin")
    me = (await door.client.get("/v1/me", headers=basic("admin") | other)).json()
    assert (me["user"], me["actor"], me["admin"]) == ("ada", "admin", True)
    for named in ("admin", "nobody", "no name/"):
        answer = await door.client.post("/v1/sql", json={"sql": "who"}, headers=basic("ada") | {"X-Kalam-User": named})
        assert code(answer) == (403, "permission_denied")
        assert answer.json()["detail"].startswith("X-Kalam-User has to be your own user, ada: only administrators")
    unknown = {"X-Kalam-User": "nobody"}
    missing = await door.client.post("/v1/sql", json={"sql": "who"}, headers=basic("admin") | unknown)
    assert code(missing) == (404, "not_found")
    assert len(door.asked) == 1


# Sessions.


async def log_in(door: Door, user: str = "ada", **headers: str) -> httpx.Response:
    return await door.client.post("/v1/login", json={"user": user, "password": PASSWORD}, headers=headers)


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


async def test_a_session_is_opened_used_and_ended(door: Door) -> None:
    answer = await log_in(door)
    assert answer.status_code == 200
    assert (answer.json()["user"], answer.json()["how"]) == ("ada", "session")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("kalam_session_mine=session_")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert answer.headers["cache-control"] == "no-store"
    mine = cookie_of(answer)
    assert (await door.client.get("/v1/me", headers=mine)).json()["how"] == "session"
    ended = await door.client.post("/v1/logout", headers=mine)
    assert (ended.status_code, ended.headers["set-cookie"].split("; ")[0]) == (204, "kalam_session_mine=")
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert code(await door.client.get("/v1/me", headers=mine)) == (401, "unauthenticated")
    assert code(await door.client.post("/v1/logout", headers=mine)) == (401, "unauthenticated")


async def test_behind_tls_the_cookie_is_secure_and_counts_there_alone(tmp_path: Path) -> None:
    async with open_door(tmp_path, trusted_proxies=("127.0.0.1",)) as door:
        await door.user("ada")
        secured = {"X-Forwarded-Proto": "https"}
        answer = await log_in(door, **secured)
        assert answer.headers["set-cookie"].startswith("__Host-kalam_session_mine=")
        assert answer.headers["set-cookie"].endswith("; Secure")
        assert (await door.client.get("/v1/me", headers=cookie_of(answer) | secured)).status_code == 200
        assert (await door.client.get("/v1/me", headers=cookie_of(answer))).status_code == 401


async def test_a_login_is_refused_as_any_wrong_secret_is(door: Door) -> None:
    wrong = {"user": "ada", "password": "wrong horse"}
    assert code(await door.client.post("/v1/login", json=wrong)) == (401, "unauthenticated")
    for body, status in (({"user": "ada"}, 400), ({"user": 1, "password": "x"}, 400), ([], 400)):
        assert (await door.client.post("/v1/login", json=body)).status_code == status
    form = await door.client.post("/v1/login", data={"user": "ada", "password": PASSWORD})
    assert code(form) == (400, "unsupported")
    foreign = await log_in(door, Origin="https://evil.example")
    assert code(foreign) == (403, "permission_denied")
    assert "set-cookie" not in foreign.headers


FETCHED = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "Same-Origin, cross-site"}, False),
    ({"Origin": "http://127.0.0.1:{port}"}, True),
    ({"Origin": "http://localhost:{port}"}, False),
    ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-site"}, False),
    ({"Origin": "https://app.example"}, False),
    ({"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}, False),
]


@pytest.mark.parametrize(("headers", "counts"), FETCHED)
async def test_the_cookie_counts_in_the_servers_own_pages_only(
    tmp_path: Path, headers: dict[str, str], counts: bool
) -> None:
    async with open_door(tmp_path, cors_origins=("https://app.example",)) as door:
        await door.user("ada")
        mine = cookie_of(await log_in(door))
        sent = {name: value.format(port=door.client.base_url.port) for name, value in headers.items()}
        for method, path, body in (
            ("GET", "/v1/me", None),
            ("POST", "/v1/sql", {"sql": "who"}),
            ("GET", "/v1/catalogue", None),
            ("GET", "/v1/live?sql=SELECT+*+FROM+a.b", None),
            ("DELETE", "/v1/queries/x", None),
        ):
            answer = await door.client.request(method, path, json=body, headers=mine | sent)
            assert (answer.status_code != 401) is counts, path
            assert "access-control-allow-credentials" not in answer.headers


async def test_a_forged_cookie_is_nobodys(door: Door) -> None:
    good = cookie_of(await log_in(door))["Cookie"]
    name, _, secret = good.partition("=")
    other = cookie_of(await log_in(door, "admin"))["Cookie"]
    for forged in (
        f"{name}=",
        f"{name}={secret[:-1]}",
        f"{name}={secret}x",
        f"{name}={make_secret('session').text}",
        f"{name}=session_{secret.split('_')[1]}_{'x' * 43}",
        f"kalam_session={secret}",
        f"__Host-{good}",
        f"{good}; {other}",
        f"{name}={secret.upper()}",
    ):
        assert code(await door.client.get("/v1/me", headers={"Cookie": forged})) == (401, "unauthenticated"), forged
    assert (await door.client.get("/v1/me", headers={"Cookie": f"a=b; {good}; c"})).status_code == 200


async def test_a_wrong_authorization_is_not_made_up_for_by_a_cookie(door: Door) -> None:
    mine = cookie_of(await log_in(door))
    assert (await door.client.get("/v1/me", headers=mine | basic("ada", "wrong horse"))).status_code == 401
    assert (await door.client.get("/v1/me", headers=mine | basic("admin"))).json()["user"] == "admin"


# What ends while it runs.


async def begin(door: Door, headers: dict[str, str]) -> asyncio.Task[httpx.Response]:
    """A request that goes on until somebody ends it."""
    running = asyncio.create_task(door.client.post("/v1/sql", json={"sql": "wait"}, headers=headers))
    async with asyncio.timeout(PATIENCE_S):
        while not door.waiting:  # noqa: ASYNC110 - a plain counter
            await asyncio.sleep(0.005)
    return running


ENDS: dict[str, Callable[[Door], Any]] = {
    "lock": lambda door: door.change("ada", locked=True),
    "end": lambda door: door.change("ada", valid_until=door.clock.now()),
    "drop": lambda door: door.drop("ada"),
    "password": lambda door: door.change("ada", password_us=1),  # the same one, set anew
}


@pytest.mark.parametrize("how", ENDS)
async def test_a_request_ends_with_its_login(door: Door, how: str) -> None:
    running = await begin(door, basic("ada"))
    others = asyncio.create_task(door.client.post("/v1/sql", json={"sql": "wait"}, headers=basic("admin")))
    await ENDS[how](door)
    with pytest.raises(httpx.RemoteProtocolError):
        await asyncio.wait_for(running, PATIENCE_S)
    again = await door.client.get("/v1/me", headers=basic("ada"))
    assert again.status_code == (200 if how == "password" else 401)
    door.released.set()
    assert (await others).status_code == 200


async def test_a_login_that_ends_by_itself_ends_what_it_runs(door: Door) -> None:
    token = await door.token("ada", expires_at=door.clock.now() + timedelta(minutes=1))
    running = await begin(door, bearer(token))
    door.clock.s += 60
    with pytest.raises(httpx.RemoteProtocolError):
        await asyncio.wait_for(running, PATIENCE_S)


async def test_who_ends_their_own_login_is_answered(door: Door) -> None:
    mine = cookie_of(await log_in(door))
    door.on_word["goodbye"] = lambda: door.change("ada", locked=True)
    answer = await door.client.post("/v1/sql", json={"sql": "goodbye"}, headers=mine)
    assert answer.status_code == 200
    assert code(await door.client.get("/v1/me", headers=mine)) == (401, "unauthenticated")


# What strangers read.


async def test_a_stranger_is_told_of_readiness_only_what_fails(door: Door) -> None:
    assert (await door.client.get("/readyz")).json() == {"ready": True, "checks": [], "server": {}}
    door.fail("disk", "/srv/kalam has 3 bytes left")
    stranger = await door.client.get("/readyz")
    assert (stranger.status_code, stranger.json()["checks"]) == (503, [{"name": "disk", "ok": False, "detail": ""}])
    known = (await door.client.get("/readyz", headers=basic("ada"))).json()
    assert known["server"] == {"id": "mine"}
    assert known["checks"][-1]["detail"] == "/srv/kalam has 3 bytes left"
    assert code(await door.client.get("/readyz", headers=basic("ada", "wrong horse"))) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("settings", "public"),
    [
        ({}, True),
        ({"trusted_proxies": ("10.0.0.1",)}, False),
        ({"metrics_public": False}, False),
        ({"metrics_public": True, "trusted_proxies": ("10.0.0.1",)}, True),
        ({"http_host": "0.0.0.0"}, False),
    ],
)
async def test_metrics_name_tables_to_administrators_only(
    tmp_path: Path, settings: dict[str, Any], public: bool
) -> None:
    async with open_door(tmp_path, **settings) as door:
        await door.user("admin", admin=True)
        await door.user("ada")
        told = Counter("kalam_told", "By table.", ["table"], registry=door.registry)
        told.labels("payroll.salaries").inc()
        stranger = await door.client.get("/metrics")
        assert stranger.status_code == (200 if public else 401)
        ada = await door.client.get("/metrics", headers=basic("ada"))
        assert "kalam_http_requests_total" in ada.text
        assert "salaries" not in stranger.text + ada.text
        assert 'table="payroll.salaries"' in (await door.client.get("/metrics", headers=basic("admin"))).text


async def test_the_overview_is_for_administrators_and_of_ones_tables_for_others(door: Door) -> None:
    assert (await door.client.get("/v1/overview", headers=basic("admin"))).json() == {"visible": None}
    assert (await door.client.get("/v1/overview", headers=basic("ada"))).json() == {"visible": ["app.seen"]}


async def test_the_catalogue_says_what_one_may_do_and_is_each_ones_own(door: Door) -> None:
    answer = await door.client.get("/v1/catalogue", headers=basic("ada"))
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["vary"] == "Authorization, Cookie, X-Kalam-User"
    [table] = answer.json()["namespaces"][0]["tables"]
    assert (table["may"], table["owns"], answer.json()["namespaces"][0]["may_create"]) == ([], False, False)
    etag = {"If-None-Match": answer.headers["etag"]}
    assert (await door.client.get("/v1/catalogue", headers=basic("ada") | etag)).status_code == 304
    whole = await door.client.get("/v1/catalogue", headers=basic("admin") | etag)
    [table] = whole.json()["namespaces"][0]["tables"]
    assert (table["may"], table["owns"]) == (["SELECT", "INSERT", "UPDATE", "DELETE"], True)
    await door.grant_select("ada")
    again = await door.client.get("/v1/catalogue", headers=basic("ada") | etag)
    assert again.json()["namespaces"][0]["tables"][0]["may"] == ["SELECT"]


# With authentication off.


async def test_without_authentication_nobody_logs_in_and_everybody_is_known(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/login", json={"user": "ada", "password": PASSWORD})
    assert code(answer) == (400, "unsupported")
    assert (await http.post("/v1/logout")).status_code == 204
    me = (await http.get("/v1/me", headers={"X-Kalam-User": "ada"} | basic("x", "y"))).json()
    assert me == {"user": "ada", "actor": None, "roles": [], "admin": True, "how": None, "authentication": False}
