"""``pg_catalog`` and ``information_schema``: what psql, drivers and BI tools ask about tables, answered from SQLite."""

from kalam_pg.catalogue.catalogue import Catalogue, CatalogueAnswer, CatalogueDescribed, Field, SessionView
from kalam_pg.catalogue.recognised import CatalogueText, is_known, recognise, recognise_and_put

__all__ = [
    "Catalogue",
    "CatalogueAnswer",
    "CatalogueDescribed",
    "CatalogueText",
    "Field",
    "SessionView",
    "is_known",
    "recognise",
    "recognise_and_put",
]
