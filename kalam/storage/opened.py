"""What lies below the tables: the database, its catalogue and copies, where segments lie, and the codecs."""

from __future__ import annotations

import msgspec

from kalam.rows.codec import Codecs
from kalam.rows.ids import SnowflakeIds, UuidV7s
from kalam.rows.normalise import Generators
from kalam.settings import Settings
from kalam.storage.log.catalogue import Catalogue
from kalam.storage.log.copy_store import CopyStore
from kalam.storage.log.database import Database
from kalam.storage.log.staged import Staged
from kalam.storage.log.troubles import Troubles
from kalam.storage.segments.cold_keys import ColdKeyIndex
from kalam.storage.segments.folders import Folders
from kalam.storage.segments.key_reader import KeyReader
from kalam.storage.segments.row_cache import KEY_ROWS, RowCache
from kalam.storage.segments.unclaimed import Unclaimed
from kalam.storage.segments.unfinished import drop_unfinished
from kalam.threads import Purpose, in_thread


class Storage(msgspec.Struct, frozen=True):
    """The parts, open."""

    database: Database
    catalogue: Catalogue
    store: CopyStore
    folders: Folders
    codecs: Codecs
    row_cache: RowCache
    cold_keys: ColdKeyIndex
    unclaimed: Unclaimed
    staged: Staged
    troubles: Troubles


async def open_storage(settings: Settings, database: Database, data_id: str) -> Storage:
    """Read the catalogue and count what is hot."""
    catalogue = Catalogue(database)
    await in_thread(Purpose.CATALOGUE, catalogue.load)
    folders = Folders(settings.data_dir, data_id, settings.segment_cache_bytes_max)
    await drop_unfinished(database, catalogue, folders)
    store = CopyStore(database, catalogue)
    await in_thread(Purpose.CATALOGUE, store.reconcile)
    codecs = Codecs(Generators(SnowflakeIds(), UuidV7s()))
    bounds = (settings.key_cache_bytes_max, settings.disk_free_bytes_min)
    row_cache = await in_thread(Purpose.FILES, RowCache, folders.data_dir / KEY_ROWS, *bounds)
    cold_keys = ColdKeyIndex(database, catalogue, KeyReader(row_cache), folders.checks)
    staged = Staged(database)
    unclaimed = Unclaimed(database, catalogue, folders)
    return Storage(database, catalogue, store, folders, codecs, row_cache, cold_keys, unclaimed, staged, Troubles())
