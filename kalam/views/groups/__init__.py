"""The groups of an aggregating view, kept by signed rows, and the difference of two results."""

from __future__ import annotations

from kalam.views.groups.calls import KeptCall
from kalam.views.groups.difference import Difference, difference
from kalam.views.groups.table import GroupTable, GroupValues

__all__ = ["Difference", "GroupTable", "GroupValues", "KeptCall", "difference"]
