"""Live queries: the rows that match, and then every change of them, in order. Knows neither NATS nor HTTP."""

from kalam.live.bounds import LiveBounds
from kalam.live.live_query import LiveQuery, Message, Sink
from kalam.live.live_request import LiveRequest
from kalam.live.registry import Registry

__all__ = ["LiveBounds", "LiveQuery", "LiveRequest", "Message", "Registry", "Sink"]
