"""``/v1/login``, ``/v1/logout`` and ``/v1/me``: a session for the console, its end, and who one is."""

from __future__ import annotations

import contextlib
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kalam.errors import NotFound, Unsupported
from kalam_http.bodies import JSON, LoginRequest, Me, check_content_type, decode_json
from kalam_http.credentials import Secret, cookie_name
from kalam_http.identity import HTTP_DOOR, USER_PARAMETER, Entrance, address_of, identity_of, logged_in
from kalam_http.routes import Routes

FRESH: Final = {"Cache-Control": "no-store"}


def login_routes(entrance: Entrance) -> Routes:
    """The routes by which somebody comes, goes, and asks who they are."""
    routes = Routes("Login")
    decoder = msgspec.json.Decoder(LoginRequest)

    @routes.post("/v1/login", summary="Log in", operation_id="login", strangers=True)
    async def login(request: Request) -> Response:
        """Open a session for a browser: its cookie stands for the user until `/v1/logout`, or 12 h without a request.

        The cookie counts in requests of the server's own pages only. Programs send `Authorization` instead.
        """
        check_content_type(request, JSON)
        asked = decode_json(await request.body(), decoder)
        access = entrance.access
        if access is None:
            raise Unsupported("authentication is off: there is nobody to log in", hint="kalam serve --auth on")
        address = address_of(request.scope)
        found = await logged_in(access.logins, Secret(asked.user, asked.password), address)
        secret = await access.logins.open_session(found, address, door=HTTP_DOOR)
        return _answer(_me(entrance, found.user), _cookie(request, entrance, secret))

    @routes.post("/v1/logout", summary="Log out", operation_id="logout")
    async def logout(request: Request) -> Response:
        """End the session of the request's cookie, and what is open by it; without one nothing ends."""
        access = entrance.access
        if access is not None:
            identity = identity_of(request)
            if identity.how == "session":
                with contextlib.suppress(NotFound):  # ended already
                    await access.logins.end_session(identity.credential, door=HTTP_DOOR, address=identity.address)
        return Response(status_code=204, headers={**FRESH, "Set-Cookie": _cookie(request, entrance, "", end=True)})

    @routes.get("/v1/me", summary="Who I am", operation_id="me", parameters=[USER_PARAMETER])
    async def me(request: Request) -> Response:
        """Answer the user as whom requests like this one run, the user's roles, and whether the caller administers."""
        identity = identity_of(request)
        return _answer(_me(entrance, identity.user, identity.actor, identity.how))

    return routes


def _me(entrance: Entrance, user: str, actor: str | None = None, how: str | None = "session") -> Me:
    access = entrance.access
    return Me(
        user=user,
        actor=actor,
        roles=[] if access is None else list(access.rights.roles(user)),
        admin=access is None or access.rights.administers(actor or user),
        how=how if entrance.on else None,
        authentication=entrance.on,
    )


def _answer(me: Me, cookie: str | None = None) -> Response:
    headers = FRESH if cookie is None else {**FRESH, "Set-Cookie": cookie}
    return Response(msgspec.json.encode(me), media_type=JSON, headers=headers)


def _cookie(request: Request, entrance: Entrance, secret: str, *, end: bool = False) -> str:
    scheme = request.scope["scheme"]
    parts = [f"{cookie_name(entrance.server, scheme)}={secret}", "Path=/", "HttpOnly", "SameSite=Strict"]
    return "; ".join(parts + (["Secure"] if scheme == "https" else []) + (["Max-Age=0"] if end else []))
