"""Who may ask, and how: a wrapper around the whole application (floor 7).

A browser is made to ask a server of this machine by any page that it shows, and a name that leads here is easily had (DNS rebinding).
So a request has to name this server by an address or a name that is its own, and one that a page sends has to come from this server's
own page.  No answer may be read by another origin, put into another page's frame or taken for another type.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
CHANGES_NOTHING = ("GET", "HEAD")


class Fence:
    """Refuses foreign requests before anything else looks at them, and says on every answer what may be done with it."""

    def __init__(self, inner: Callable[[Scope, Receive, Send], Awaitable[None]], host: str, names: Iterable[str] = ()) -> None:
        self.inner, self.open = inner, not is_loopback(host)
        self.names = own_names(host) | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            return await self.inner(scope, receive, send)
        if scope["type"] != "http":  # a web socket
            return await send({"type": "websocket.close", "code": 1008})

        async def told(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        why = self.why_not(scope)
        if why:
            return await _refused(told, why)
        await self.inner(scope, receive, told)

    def why_not(self, scope: Scope) -> str:
        """Why a request is not from here, "" where it is."""
        hosts = _all(scope, b"host")
        if len(hosts) != 1 or not self._ours(hosts[0]):
            return "this server is not called so: use the address that it printed"
        origins = _all(scope, b"origin")
        if origins and origins not in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"]):
            return "requests of other pages are not answered"
        site, mode = _all(scope, b"sec-fetch-site"), _all(scope, b"sec-fetch-mode")
        followed = scope["method"] in CHANGES_NOTHING and mode == ["navigate"] and scope["path"] == "/"  # a link that somebody sent
        if site and site[0] not in ("same-origin", "none") and not followed:
            return "requests of other pages are not answered"
        return ""

    def _ours(self, host: str) -> bool:
        """Whether a host, with its port or without, is this server: one of its names, or, where it is open to others, any address."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
        if name.lower() in self.names:
            return True
        try:
            return self.open and ipaddress.ip_address(name.strip("[]")) is not None
        except ValueError:
            return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> frozenset[str]:
    """What a server at `host` may be called; one that others can reach also by the name of its machine."""
    own = () if is_loopback(host) else (socket.gethostname(), socket.getfqdn())
    return frozenset(name.lower() for name in (*LOOPBACK, host, f"[{host}]" if ":" in host else host, *own))


def _all(scope: Scope, name: bytes) -> list[str]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


async def _refused(send: Send, why: str) -> None:
    from apexsim.report.jsonout import error_json
    from apexsim.report.plain import dumps

    body = dumps(error_json(2, "refused", why, "", "", {})).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": head})
    await send({"type": "http.response.body", "body": body})
