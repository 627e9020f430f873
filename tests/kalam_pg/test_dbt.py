"""dbt builds a project in Kalam: seeds, a view, tables, an ephemeral model, tests, the catalogue of its docs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from dbt_project import DBT, MISSING, statuses, told_by, write_project

if DBT is None:
    pytest.skip(MISSING, allow_module_level=True)

FILES = {
    "dbt_project.yml": """
name: shop
version: "1.0"
profile: kalam
""",
    "seeds/customers.csv": "id,name,joined\n1,Ada,2026-01-01\n2,Carl,2026-02-03\n3,Zoë,\n",
    "seeds/orders.csv": """id,customer,amount,at
1,1,10.5,2026-03-01 10:00:00
2,1,4.25,2026-03-02 11:00:00
3,2,7.0,2026-03-03 12:00:00
""",
    "models/bought.sql": """{{ config(materialized='view') }}
select id as order_id, customer, amount, at as ordered_at from {{ ref('orders') }}
""",
    "models/sums.sql": """{{ config(materialized='ephemeral') }}
select customer, sum(amount) as total, count(*) as orders from {{ ref('bought') }} group by customer
""",
    "models/totals.sql": """{{ config(materialized='table') }}
select c.id, c.name, coalesce(s.total, 0) as total, coalesce(s.orders, 0) as orders
from {{ ref('customers') }} c left join {{ ref('sums') }} s on s.customer = c.id
""",
    "models/grown.sql": """{{ config(materialized='incremental', unique_key='order_id') }}
select order_id, customer, amount, ordered_at from {{ ref('bought') }}
{% if is_incremental() %} where ordered_at > (select max(ordered_at) from {{ this }}) {% endif %}
""",
    "models/schema.yml": """
version: 2
models:
  - name: totals
    columns:
      - name: id
        data_tests: [unique, not_null]
      - name: name
        data_tests: [{accepted_values: {arguments: {values: [Ada, Carl, Zoë]}}}]
  - name: grown
    columns:
      - name: customer
        data_tests: [{relationships: {arguments: {to: ref('customers'), field: id}}}]
""",
    "snapshots/names.sql": """{% snapshot names %}
{{ config(target_schema='shop', unique_key='id', strategy='check', check_cols=['name']) }}
select id, name from {{ ref('customers') }}
{% endsnapshot %}
""",
    "tests/no_loss.sql": "select * from {{ ref('grown') }} where amount < 0",
}
PROFILE = """
kalam:
  target: dev
  outputs:
    dev:
      {{type: postgres, host: {0.hostname}, port: {0.port}, user: admin, password: none, dbname: kalam, schema: shop}}
"""


@pytest.fixture(scope="module")
def project(pg_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dbt")
    write_project(folder, {**FILES, "profiles.yml": PROFILE.format(urlsplit(pg_url))})
    return folder


def test_dbt_builds_tests_builds_again_and_documents(project: Path, connection: psycopg.Connection) -> None:
    built = statuses(project, "build")
    made = ("bought", "customers", "grown", "names", "orders", "totals")
    assert {name: status for name, status in built.items() if name in made} == dict.fromkeys(made, "success")
    assert sorted(status for name, status in built.items() if name not in made) == ["pass"] * 5
    totals = "SELECT id, name, total, orders FROM shop.totals ORDER BY id"
    assert connection.execute(totals).fetchall() == [(1, "Ada", 14.75, 2), (2, "Carl", 7.0, 1), (3, "Zoë", 0.0, 0)]
    connection.execute("INSERT INTO shop.orders (id, customer, amount, at) VALUES (4, 3, 0.5, '2026-03-04 00:00:00')")
    assert statuses(project, "run", "--select", "bought", "totals") == {"bought": "success", "totals": "success"}
    assert connection.execute(totals).fetchall()[2] == (3, "Zoë", 0.5, 1)
    assert connection.execute("SELECT count(*) FROM shop.grown").fetchone() == (3,)
    nodes = told_by(project, "docs", "generate", into="catalog")["nodes"]
    shown = {name.split(".")[2]: node["metadata"]["type"] for name, node in nodes.items()}
    assert shown == {**dict.fromkeys(made, "BASE TABLE"), "bought": "VIEW"}
    assert nodes["model.shop.totals"]["columns"]["total"]["type"] == "double precision"
