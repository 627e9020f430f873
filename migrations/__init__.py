"""The schema of ``kalam.db``, as migrations for sqlite-utils; a migration is never edited after its release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .m001_first_release import first_release
from .m002_former_times import former_times

MIGRATIONS: tuple[Callable[[Any], None], ...] = (first_release, former_times)
"""Every migration, oldest first; ``PRAGMA user_version`` is the number of those that a database has seen."""
