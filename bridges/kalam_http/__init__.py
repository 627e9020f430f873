"""The HTTP door: SQL, health, metrics and the description of the API."""

from kalam_http.app import create_app
from kalam_http.guard import Guard
from kalam_http.identity import Entrance
from kalam_http.listener import Listening, serve_http
from kalam_http.overview import Overview

__all__ = ["Entrance", "Guard", "Listening", "Overview", "create_app", "serve_http"]
