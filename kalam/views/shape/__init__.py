"""What a view's SELECT is: kept by groups, by running it again, or refused, and the texts by which groups are kept."""

from __future__ import annotations

from kalam.views.shape.classified import Grouped, Rerun, classified
from kalam.views.shape.refused import refused

__all__ = ["Grouped", "Rerun", "classified", "refused"]
