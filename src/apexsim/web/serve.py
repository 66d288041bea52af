"""The server: one address, one line of where it is, a clean end (floor 7).  Needs the extra `web`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from apexsim.errors import InputError
from apexsim.web.app import application
from apexsim.web.fence import is_loopback
from apexsim.web.limits import Limits

LARGEST_HEAD = 32 << 10  # [byte] of the head of a request
IDLE = 5  # s that a connection may stay open without a request
END = 1  # s for what is under way, at the end


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises InputError in a line where it cannot."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or "it is no name of a machine"
        raise InputError(f"no such address '{host}': {told}", "--host", "127.0.0.1 is this machine alone") from None
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        raise InputError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}", "--port", "name another one, or 0 for a free one"
        ) from None
    return found


def serve(limits: Limits, host: str, port: int, say: Callable[[str], None], names: Sequence[str] = ()) -> None:
    """Serve until Ctrl-C.  names: further ones that it may be called by."""
    listening = bound(host, port)
    with listening:
        at = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        say(f"apexsim: http://{shown}:{at}  (Ctrl-C ends it)")
        if not is_loopback(host):
            say("apexsim: warning: whoever can reach this address can ask; there is no password, and what is sent is not encrypted")
        with suppress(KeyboardInterrupt):  # the usual end
            uvicorn.Server(config(application(limits, host, names), limits)).run(sockets=[listening])


def config(app: Any, limits: Limits) -> uvicorn.Config:
    """How an application is served: nothing is logged, nothing told of the server, and nobody waits for long."""
    return uvicorn.Config(
        app,
        http=patient(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=END,
        h11_max_incomplete_event_size=LARGEST_HEAD,
    )


def patient(limits: Limits) -> type[H11Protocol]:
    """HTTP that waits for the head of a request only so long."""

    class Patient(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._idle():
                self._wait()
            elif self.late is not None:
                self.late.cancel()
                self.late = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self.late is not None:
                self.late.cancel()
            super().connection_lost(exc)

        def _idle(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            if self.late is None:
                self.late = self.loop.call_later(limits.late, self._end)

        def _end(self) -> None:
            self.late = None
            if self._idle() and not self.transport.is_closing():
                self.transport.close()

    return Patient
