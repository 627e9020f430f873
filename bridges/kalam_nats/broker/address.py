"""Where an outside broker is and how to sign in there: ``--nats-url``, ``--nats-context``, ``NATS_URL``.

A context is a file of the `nats` command line tool, ``~/.config/nats/context/<name>.json``.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kalam.errors import InvalidOption
from kalam.settings import Settings

_CONTEXT_NAME = re.compile(r"[A-Za-z0-9_.@-]+")
_CONTEXT_PLAIN = {
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "user_credentials",
    "nkey": "nkeys_seed",
    "inbox_prefix": "inbox_prefix",
}
_CONTEXT_FILES = ("creds", "nkey", "cert", "key", "ca")


def connect_options(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, Any] | None:
    """What ``broker_connection`` needs for the outside broker that is named, or None when none is.

    ``nats_url`` is asked first, then ``nats_context``, then the environment's ``NATS_URL``. The options are
    ``servers`` (a list of URLs) and, from a context, what nats-py's ``connect`` takes for signing in. Raises
    InvalidOption for a context that does not exist or cannot be used.
    """
    if settings.nats_url:
        return {"servers": _servers(settings.nats_url)}
    if settings.nats_context:
        return context_options(settings.nats_context, environment)
    if url := environment.get("NATS_URL"):
        return {"servers": _servers(url)}
    return None


def context_options(name: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What a context says, as ``connect_options`` gives it; raises InvalidOption."""
    return _context_options(_context_file(name, environment))


def _servers(urls: str) -> list[str]:
    return [url.strip() for url in urls.split(",") if url.strip()]


def _context_file(name: str, environment: Mapping[str, str]) -> Path:
    if not _CONTEXT_NAME.fullmatch(name) or name.startswith("."):
        raise InvalidOption(f"{name!r} is no name of a NATS context")
    configured = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return Path(configured) / "nats" / "context" / f"{name}.json"


def _context_options(file: Path) -> dict[str, Any]:
    try:
        context = json.loads(file.read_bytes())
    except OSError as exc:
        raise InvalidOption(f"the NATS context {file.stem!r} cannot be read: {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise InvalidOption(f"the NATS context {file} is not JSON: {exc}") from exc
    if not isinstance(context, dict):
        raise InvalidOption(f"the NATS context {file} is not a JSON object")
    context |= {name: str(Path(context[name]).expanduser()) for name in _CONTEXT_FILES if context.get(name)}
    options: dict[str, Any] = {"servers": _servers(context.get("url") or "nats://127.0.0.1:4222")}
    options |= {ours: context[theirs] for theirs, ours in _CONTEXT_PLAIN.items() if context.get(theirs)}
    if {"user_credentials", "nkeys_seed"} & options.keys() and find_spec("nkeys") is None:
        raise InvalidOption(f"the NATS context {file} signs in with a key: install the package nkeys")
    if "user" in options and "password" not in options:
        options["token"] = options.pop("user")  # the tool takes a user alone for a token
    if any(context.get(name) for name in ("cert", "key", "ca")):
        options["tls"] = _tls(file, context)
    if context.get("tls_first"):
        options["tls_handshake_first"] = True
    return options


def _tls(file: Path, context: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=context.get("ca") or None)
        if context.get("cert"):
            tls.load_cert_chain(context["cert"], context.get("key") or None)
    except OSError as exc:
        raise InvalidOption(f"the certificates of the NATS context {file} cannot be used: {exc}") from exc
    return tls
