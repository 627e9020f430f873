"""The statements on materialized views, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kalam.sql.text.alterations import SetOptions
from kalam.sql.text.statements import OnView, QueryText, TableRef


class CreateView(OnView, frozen=True, kw_only=True):
    """``options`` as in CreateTable; ``query`` is the SELECT whose rows are kept, in memory if it is ``ephemeral``."""

    ref: TableRef
    query: QueryText
    options: Mapping[str, Any]
    if_not_exists: bool
    ephemeral: bool = False


class DropView(OnView, frozen=True):
    """``cascade`` as in DropTable."""

    ref: TableRef
    if_exists: bool
    cascade: bool = False


class AddExpression(msgspec.Struct, frozen=True):
    """``ADD COLUMN name AS expression`` of a view."""

    name: str
    value: QueryText


class AlterView(OnView, frozen=True):
    """``ALTER MATERIALIZED VIEW`` with its one action."""

    ref: TableRef
    action: AddExpression | SetOptions


class RefreshView(OnView, frozen=True):
    """``REFRESH MATERIALIZED VIEW``."""

    ref: TableRef


class ShowViews(OnView, frozen=True):
    """``SHOW VIEWS``."""


ViewStatement = CreateView | DropView | AlterView | RefreshView | ShowViews
