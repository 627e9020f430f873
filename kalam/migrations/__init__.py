"""The schema of ``kalam.db``, as migrations for sqlite-utils: ``mNNN_name.py`` with a function ``name``, oldest first.

They are beside this module in an installed wheel, and in ``migrations/`` of a checkout. A migration is never edited
after its release.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
if not any(_HERE.glob("m[0-9]*.py")):
    __path__ = [str(_HERE.parents[1] / "migrations")]


def _load() -> tuple[Callable[[Any], None], ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(getattr(import_module(f"{__name__}.{name}"), name.partition("_")[2]) for name in names)


MIGRATIONS = _load()
"""Every migration, oldest first; ``PRAGMA user_version`` is the number of those that a database has seen."""
