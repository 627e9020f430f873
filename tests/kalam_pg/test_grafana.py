"""The dashboard that asks Kalam by SQL: every query of it runs, as Grafana sends it, and shows what the tables hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import pytest
import yaml
from server_process import ServerProcess

from kalam.cli.demo_quakes import COLUMNS, load_quakes

FOLDER = Path(__file__).parents[2] / "bridges" / "kalam_http" / "observability"
BOARD: dict[str, Any] = json.loads((FOLDER / "earthquakes.json").read_text())
EARTHQUAKES = 1707


def read(file: str) -> Any:
    return yaml.safe_load((FOLDER / file).read_text())


@pytest.fixture(scope="module")
def reader(pg_server: ServerProcess, pg_url: str) -> str:
    """Where the data source is, for its user."""
    [source] = [each for each in read("grafana-datasource.yml")["datasources"] if "user" in each]
    pg_server.sql(f"CREATE NAMESPACE quakes; CREATE SHARED TABLE quakes.latest ({COLUMNS.format(key='PRIMARY KEY')})")
    body = b"\n".join(quake.json for quake in load_quakes())
    headers = {"Content-Type": "application/x-ndjson", **pg_server.named("admin")}
    urlopen(Request(f"{pg_server.http_url}/v1/tables/quakes/latest/rows", body, headers)).close()
    return pg_url.replace("//admin@", f"//{source['user']}@")


def as_grafana_asks(text: str, networks: list[str]) -> str:
    """The query as Grafana sends it: its macros and variables written out."""
    first, last = BOARD["time"]["from"], BOARD["time"]["to"]
    text = text.replace("$network", ",".join(f"'{network}'" for network in networks)).replace("$__interval", "10m")
    text = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN '{first}' AND '{last}'", text)

    def grouped(found: re.Match[str]) -> str:
        seconds = int(found[2][:-1]) * {"m": 60, "h": 3600}[found[2][-1]]
        return f'floor(extract(epoch from {found[1]})/{seconds})*{seconds} AS "time"'

    return re.sub(r"\$__timeGroupAlias\(([^,]*), '?(\w+)'?\)", grouped, text)


def test_every_panel_of_the_dashboard_shows_what_the_table_holds(reader: str) -> None:
    [variable] = BOARD["templating"]["list"]
    with psycopg.connect(reader, autocommit=True) as connection:
        networks = [network for [network] in connection.execute(variable["query"]).fetchall()]
        assert len(networks) > 8
        shown: dict[str, list[tuple[Any, ...]]] = {}
        for panel in BOARD["panels"]:
            [target] = panel["targets"]
            text = as_grafana_asks(target["rawSql"], networks)
            assert "$" not in text
            cursor = connection.execute(text.encode())
            names = [column.name for column in cursor.description or ()]
            shown[f"{panel['type']}: {panel['title']}"] = rows = cursor.fetchall()
            assert rows, panel["title"]
            if target["format"] == "time_series":
                assert names[0] == "time"
                assert all(isinstance(value, float) for value, *_ in rows)
                assert rows == sorted(rows)
    assert shown["stat: Earthquakes"] == [(EARTHQUAKES,)]
    assert sum(count for _, count in shown["timeseries: Earthquakes"]) == EARTHQUAKES
    assert shown["stat: The strongest"] == [(max(quake.mag for quake in load_quakes()),)]
    assert max(mag for *_, mag in shown["timeseries: Magnitude by network"]) == shown["stat: The strongest"][0][0]
    assert sorted(network for network, *_ in shown["barchart: By network"]) == networks
    assert len(shown["table: The strongest"]) == 20


def test_panels_lie_beside_each_other_and_ask_the_one_source() -> None:
    [source] = [each for each in read("grafana-datasource.yml")["datasources"] if each["uid"] == "kalam"]
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells
        taken |= cells
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["description"].endswith(".")
