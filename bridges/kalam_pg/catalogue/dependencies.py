"""The rows of ``pg_depend`` that tell of one table, and the rule by which PostgreSQL has a view read its tables.

A table hangs on its namespace, a default and a key on columns, the key's index on the key, a view's rule on the view
and on what it reads. Of that only what the same user sees is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kalam_pg.catalogue import oids
from kalam_pg.catalogue.described import TABLE, Described
from kalam_pg.catalogue.oids import Part

Row = tuple[str, Mapping[str, Any]]
_NAMESPACE, _CLASS, _DEFAULT, _CONSTRAINT, _RULE = 2615, 1259, 2604, 2606, 2618
_RETURN: Final = {
    "rulename": "_RETURN",
    "ev_type": "1",
    "ev_enabled": "O",
    "is_instead": 1,
    "ev_qual": "<>",
    "ev_action": "<>",
}


def rows(table: Described) -> Iterator[Row]:
    """What a table of Kalam's and its parts hang on."""
    yield _row((_CLASS, table.oid), (_NAMESPACE, table.schema_oid), "n")
    for place, column in enumerate(table.columns, 1):
        if column.default is not None:
            kind = "i" if column.generated else "a"
            yield _row((_DEFAULT, oids.of_default(table.of, place)), (_CLASS, table.oid, place), kind)
    if table.key:
        index, constraint = (_CLASS, table.part(Part.INDEX)), (_CONSTRAINT, table.part(Part.CONSTRAINT))
        yield _row(index, constraint, "i")
        for place in table.key:
            yield _row(constraint, (_CLASS, table.oid, place), "a")
    if table.kind != TABLE and table.definition is not None:
        rule = (_RULE, table.part(Part.RULE))
        yield "pg_rewrite", {**_RETURN, "oid": rule[1], "ev_class": table.oid}
        yield _row(rule, (_CLASS, table.oid), "i")
        for read in table.reads:
            yield _row(rule, (_CLASS, oids.of_table(read)), "n")


def _row(of: tuple[int, int], on: tuple[int, ...], kind: str) -> Row:
    told = {"classid": of[0], "objid": of[1], "objsubid": 0, "refclassid": on[0], "refobjid": on[1]}
    return "pg_depend", {**told, "refobjsubid": on[2] if len(on) > 2 else 0, "deptype": kind}
