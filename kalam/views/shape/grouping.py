"""What a SELECT is grouped by, and when two expressions are the same one."""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from kalam.sql.text.mentions import name_of


def grouped_by(select: exp.Select, columns: Collection[str]) -> list[exp.Expr] | None:
    """The expressions that it is grouped by, each once: a number or the name of an item stands for it.

    A name is a column's if the source has such a column. None for what groups in several ways at once.
    """
    group = select.args.get("group")
    if group is None:
        return []
    if any(value for part, value in group.args.items() if part != "expressions"):
        return None
    names = {item.alias: item.this for item in select.expressions if isinstance(item, exp.Alias)}
    keys: list[exp.Expr] = []
    for node in group.expressions:
        found = node.unnest()
        if isinstance(found, (exp.Cube, exp.Rollup, exp.GroupingSets, exp.Tuple)):
            return None
        if isinstance(found, exp.Literal) and not found.is_string:
            place = int(found.this) if str(found.this).isdecimal() else 0
            if not 0 < place <= len(select.expressions):
                return None
            found = select.expressions[place - 1].unalias()
        elif isinstance(found, exp.Column) and not found.table and name_of(found.this) not in columns:
            found = names.get(found.name, found)
        if form_of(found) not in map(form_of, keys):
            keys.append(found)
    return keys


def form_of(node: exp.Expr) -> exp.Expr:
    """An expression as it is compared with others: without brackets, table names and the case of names."""

    def plain(part: exp.Expr) -> exp.Expr:
        if isinstance(part, exp.Column) and isinstance(part.this, exp.Identifier):
            return exp.column(exp.to_identifier(name_of(part.this), quoted=True))
        return part.this if isinstance(part, exp.Paren) else part

    return node.copy().transform(plain)
