"""The proof at the start: a login that is made up has to be asked about, sealed, and to be refused.

A broker that does not ask (its configuration is another, or names somebody who needs no password) would let in anybody,
and one that does not seal writes passwords into its trace log. What is not so is not claimed: the start fails.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

from nats import errors as nats_errors
from nats.aio.client import Client

from kalam.errors import BrokerUnavailable
from kalam_nats.access.callout import Callout

NAME: Final = "kalam-made-up-"
_WAYS: Final = ("servers", "tls", "tls_hostname", "tls_handshake_first")
_ADVICE: Final = "add to its configuration what `kalam nats-config` prints"


async def prove_logins(callout: Callout, options: Mapping[str, Any], timeout_s: float) -> None:
    """Log in with a user that nobody is; raises BrokerUnavailable unless it is asked about and refused.

    ``options`` say where the broker is (``servers``) and how its connection is made, as nats-py's ``connect`` takes it.
    """
    user = f"{NAME}{secrets.token_hex(8)}"
    asked = callout.expect(user)
    try:
        let_in = await _logs_in(options, user, timeout_s)
    except (OSError, TimeoutError, nats_errors.Error) as exc:
        raise BrokerUnavailable(f"the broker does not answer a login: {exc or type(exc).__name__}; {_ADVICE}") from exc
    finally:
        callout.expect_no_more(user)
    if let_in:
        raise BrokerUnavailable(f"the broker let in a user who does not exist; {_ADVICE}")
    if not asked.is_set():
        raise BrokerUnavailable(f"the broker refused a login without asking Kalam; {_ADVICE}")


async def _logs_in(options: Mapping[str, Any], user: str, timeout_s: float) -> bool:
    said: list[str] = []

    async def note(error: Exception) -> None:
        said.append(str(error))

    client = Client()
    ways = {
        name: options[name] for name in ("servers", "tls", "tls_hostname", "tls_handshake_first") if name in options
    }
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                **ways,
                user=user,
                password=secrets.token_urlsafe(),
                allow_reconnect=False,
                connect_timeout=math.ceil(timeout_s),
                error_cb=note,
            )
    except nats_errors.Error as exc:
        if "authorization violation" not in f"{exc} {said}".lower():
            raise
        return False
    await client.close()
    return True
