"""The engine: every statement and every insert of every door goes through it."""

from kalam.engine.facade import Engine
from kalam.engine.inserts import Inserts
from kalam.engine.row_streams import stream_rows
from kalam.engine.session import Check, Session
from kalam.tables.insert_batch import InsertMessage

__all__ = ["Check", "Engine", "InsertMessage", "Inserts", "Session", "stream_rows"]
