"""Which statements are about the catalogue: told by the relations and functions of the tree, and by nothing else.

A text in which none of their names occurs is not read at all.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from typing import Final

import msgspec
from sqlglot import exp

from kalam.errors import KalamError, SyntaxFault, Unsupported
from kalam.sql.text.dialect import FOREIGN_ERRORS
from kalam_pg.catalogue import pg_types, relations
from kalam_pg.catalogue.calls import RETURNED
from kalam_pg.catalogue.expressions import identifier
from kalam_pg.catalogue.reading import read
from kalam_pg.catalogue.selects import Question, put
from kalam_pg.catalogue.series import SERIES
from kalam_pg.catalogue.sources import BESIDE_A_TABLE, READ_APART

KEPT: Final = 512
KEPT_CHARACTERS_MAX: Final = 20_000
"""Longer texts are not kept, so that what is kept is bounded: they are put into words where they are recognised."""
CHARACTERS_MAX: Final = 1 << 17
"""No tool's question is longer."""
_KNOWN: Final[dict[str, bool]] = {}
"""Whether texts are about the catalogue; at most ``KEPT`` of them."""

_TELLING: Final = re.compile(
    r"pg_|information_schema|current_|session_user|version\s*\(|has_\w+_privilege|_description\s*\(|\breg\w+|to_reg|"
    r"set_config|format_type|quote_|parse_ident|txid_|inet_|\buser\b|current_setting",
    re.IGNORECASE,
)
"""Words without which a text names no relation and no function of the catalogue."""
_BEGINNING: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with|values|table)\b", re.IGNORECASE | re.DOTALL
)
_OWN: Final = frozenset(
    name
    for name in (*RETURNED, *SERIES)
    if name.startswith(("_pg_", "has_", "to_reg", "txid_", "inet_", "current_s", "quote_"))
    or name
    in (
        *("format_type", "obj_description", "col_description", "shobj_description", "version", "current_database"),
        *("set_config", "parse_ident", "aclexplode", "row_security_active", "getdatabaseencoding"),
    )
)
"""Functions that only the catalogue has, beside those called ``pg_…``. What DataFusion has too is not decisive."""
_WHO: Final = (exp.CurrentUser, exp.SessionUser, exp.CurrentCatalog, exp.CurrentSchema)
_BARE_WHO: Final = frozenset({"user", "current_role"})


class CatalogueText(msgspec.Struct, frozen=True):
    """A statement about the catalogue, by its text; ``long`` is what a long one was put into."""

    text: str
    long: Question | None = None

    def put(self, declared: tuple[int, ...]) -> Question:
        """The statement in SQLite's words; raises what is wrong with it."""
        if self.long is None:
            return _put(self.text, declared)
        return _put.__wrapped__(self.text, declared) if any(declared) else self.long


@lru_cache(maxsize=KEPT)
def _put(text: str, declared: tuple[int, ...]) -> Question:
    try:
        return put(read(text), declared)
    except FOREIGN_ERRORS as exc:  # a text that nobody writes may make a tree of a shape that sqlglot does not promise
        raise SyntaxFault("this is not SQL that Kalam can read") from exc


def recognise(text: str) -> CatalogueText | None:
    """What a statement about the catalogue is; None for one that is the engine's.

    Raises Unsupported for one that names relations of the catalogue and tables, and what is wrong with a long one. That
    takes milliseconds, and for a long text a second, so it is for a thread unless the text ``is_known``.
    """
    if not _may_be_ours(text):
        return None
    if len(text) > KEPT_CHARACTERS_MAX:
        return CatalogueText(text, _put.__wrapped__(text, ())) if _is_ours(text) else None
    ours = _KNOWN.get(text)
    if ours is None:
        ours = _is_ours(text)
        if len(_KNOWN) >= KEPT:
            _KNOWN.clear()
        _KNOWN[text] = ours
    return CatalogueText(text) if ours else None


def is_known(text: str) -> bool:
    """Whether ``recognise`` says without reading a text whether it is about the catalogue."""
    return text in _KNOWN or not _may_be_ours(text)


def recognise_and_put(text: str, declared: tuple[int, ...]) -> CatalogueText | None:
    """``recognise``, and put the statement into SQLite's words too, which is kept; for a thread."""
    found = recognise(text)
    if found is not None:
        with suppress(KalamError):  # told when the statement is described or answered
            found.put(declared)
    return found


def _may_be_ours(text: str) -> bool:
    return len(text) <= CHARACTERS_MAX and _TELLING.search(text) is not None and _BEGINNING.match(text) is not None


def _is_ours(text: str) -> bool:
    try:
        return is_about_catalogue(read(text))
    except (SyntaxFault, *FOREIGN_ERRORS):
        return False  # whoever else reads it tells what is wrong


def is_about_catalogue(tree: exp.Expr) -> bool:
    """Whether a tree names a relation, function or type of the catalogue.

    Raises Unsupported where tables stand beside.
    """
    if not isinstance(tree, exp.Query):
        return False
    defined = {identifier(each.args["alias"].this) for each in tree.find_all(exp.CTE)}
    own = others = False
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            continue
        called, schema = identifier(table.this) or "", identifier(table.args.get("db"))
        if schema is None and called in defined:
            continue
        if schema in relations.SCHEMAS or relations.found(called, schema) is not None:
            own = True
        else:
            others = True
    names = {node.name.lower() for node in tree.find_all(exp.Anonymous)}
    calls = not _OWN.isdisjoint(names) or any(name.startswith("pg_") for name in names)
    if others:
        if own or calls or _casts(tree):
            raise Unsupported(BESIDE_A_TABLE, hint=READ_APART)
        return False
    return own or calls or _casts(tree) or _who(tree)


def _casts(tree: exp.Expr) -> bool:
    """Whether something is cast to one of the types whose values are names of the catalogue."""
    for node in tree.find_all(exp.Cast):
        known = pg_types.parsed(node.args["to"].sql("postgres"))
        if known is not None and known[0].removeprefix(pg_types.ARRAY) in pg_types.NAMED:
            return True
    return False


def _who(tree: exp.Expr) -> bool:
    """Whether it asks for nothing but who asks, and where."""
    if any(True for _ in tree.find_all(*_WHO)):
        return True
    columns = [node for node in tree.find_all(exp.Column) if not node.args.get("table")]
    return bool(columns) and all(identifier(node.this) in _BARE_WHO for node in columns)
