"""The engine: every statement and every insert of every door goes through it."""

from kalam.engine.facade import Engine
from kalam.engine.insert_batch import InsertMessage
from kalam.engine.inserts import Inserts
from kalam.engine.row_streams import stream_rows
from kalam.engine.session import Check, Session

__all__ = ["Check", "Engine", "InsertMessage", "Inserts", "Session", "stream_rows"]
