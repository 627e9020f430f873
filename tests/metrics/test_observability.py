"""The dashboard, the alert rules and what compose.yaml does with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_process import ServerProcess

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "bridges" / "kalam_http" / "observability"
OF_PROMETHEUS = {"up", "ALERTS"}
LABELS_OF_PROMETHEUS = {"le", "job", "instance", "alertname", "alertstate"}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in rules())


def names_in(expression: str) -> set[str]:
    """The metrics of an expression: every name but those of functions, labels and texts."""
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\bby \([^)]*\)|\blabel_values\b', " ", expression)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare)) - {"by", "or", "e"} - OF_PROMETHEUS


def labels_in(expression: str) -> set[str]:
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", expression)
    return {label.strip() for labels in grouped for label in labels.split(",")} | set(matched)


def test_every_metric_of_dashboard_and_rules_is_there(shared_server: ServerProcess) -> None:
    there = set(re.findall(r"^# HELP (\S+)", shared_server.metrics(), re.MULTILINE))
    buckets = {f"{name}_bucket" for name in there if name.endswith("_seconds")}
    named = {name for expression in expressions() for name in names_in(expression)}
    assert len(named) > 40
    assert named - there - buckets == set()


def test_every_label_of_dashboard_and_rules_is_documented() -> None:
    page = (CHECKOUT / "kalam" / "manual" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(?:kalam|process)_\w+` \| ([^|]*) \|", page, re.MULTILINE)
    documented = {label for row in rows for label in re.findall(r"`(\w+)`", row)}
    used = {label for expression in expressions() for label in labels_in(expression)}
    assert used - documented - LABELS_OF_PROMETHEUS == set()


def test_panels_lie_beside_each_other_and_have_a_name() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert place["x"] + place["w"] <= 24
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_alert_says_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_compose_mounts_files_that_are_there(service: str) -> None:
    compose = read_yaml(CHECKOUT / "compose.yaml")
    volumes = [volume.split(":") for volume in compose["services"][service]["volumes"]]
    files = [CHECKOUT / source for source, *_ in volumes if source.startswith("./")]
    assert files
    assert [file for file in files if not file.is_file()] == []
    assert {source for source, *_ in volumes if not source.startswith("./")} <= set(compose["volumes"])


def test_what_compose_starts_finds_each_other() -> None:
    services = read_yaml(CHECKOUT / "compose.yaml")["services"]
    (scraped,) = read_yaml(FOLDER / "prometheus.yml")["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["kalam:8080"]}]
    assert (scraped["job_name"], read_yaml(FOLDER / "prometheus.yml")["rule_files"]) == ("kalam", ["alerts.yml"])
    source, tables = read_yaml(FOLDER / "grafana-datasource.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    port = services["kalam"]["environment"]["KALAM_PG_PORT"]
    assert (tables["type"], tables["url"]) == ("grafana-postgresql-datasource", f"kalam:{port}")
    (provider,) = read_yaml(FOLDER / "grafana-dashboards.yml")["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounted
    assert home.startswith(provider["options"]["path"])
