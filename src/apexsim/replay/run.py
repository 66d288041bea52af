"""Sending a workload to a server at its arrivals, or by so many users (floor 5).

Open loop: a request goes out when it is due, whatever has come back.  Closed loop: `concurrency` users, each sends the
next request of the trace when its last one has ended.  What came back before something broke is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from types import ModuleType
from typing import Any

from apexsim.errors import InputError
from apexsim.replay.prompts import Prompts
from apexsim.replay.record import NOT_SENT, ReplayRun, Sent
from apexsim.replay.wire import Target, detail, receive
from apexsim.workload.load import mean_rate
from apexsim.workload.trace import Workload

INTERRUPTED = "interrupted"
SLACK = 1.25  # a stream without events is left so many times later than one without bytes
RUNAWAY, RUNAWAY_MORE = 2, 64  # chunks over tokens asked, and beyond that, at which a stream is left
ENOUGH = 1 << 16  # [byte] of a complaint
Told = Callable[[int, int, str], None]  # requests done, of how many, what they are


@dataclass(frozen=True, slots=True)
class Patience:
    """When a request, and when the run, is given up.

    quiet: seconds without a byte from the server; failures: failed requests in a row after which no more are sent;
    tries: requests sent one after the other before the run and not recorded, the first of which tells a server that
    cannot serve at all.
    """

    quiet: float = 300.0
    failures: int = 20
    tries: int = 1


def replay(work: Workload, target: Target, prompts: Prompts, patience: Patience, told: Told | None = None) -> ReplayRun:
    """Send the workload; what came back, even where the run had to stop.

    Raises InputError where the server does not answer the tries before the run.
    """
    if target.api == "chat" and prompts.kind == "ids":
        raise InputError("the chat interface takes no token ids", "--prompts", "use --prompts text")
    date = datetime.now().strftime("%Y%m%d-%H%M%S")
    session = Session(work, target, prompts, patience, told or (lambda *_: None))
    gc.collect()
    gc.freeze()  # else collections walk over everything loaded before, while requests wait
    try:
        asyncio.run(session.run(_httpx()))
    finally:
        gc.unfreeze()
    for request in session.sent:  # a server may send back what it was sent
        request.error, request.text = target.hidden(request.error), [target.hidden("".join(request.text))]
    session.stopped = target.hidden(session.stopped)
    rate = mean_rate(work.arrive) if work.mode == "open" and work.arrive[-1] > work.arrive[0] else "inf"
    about = {
        "date": date, "endpoint_type": target.api, "backend": "openai", "label": "apexsim", "url": target.shown,
        "model_id": target.model, "tokenizer_id": None, "request_rate": rate, "burstiness": None,
        "client_cpu_share": round(session.busy, 4),
    }  # fmt: skip
    users = work.concurrency if work.mode == "closed" else 0
    common = () if prompts.unique else (work.prefix, work.block)
    return ReplayRun(tuple(session.sent), work.mode, users, work.warmup, session.stopped, about, *common)


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise InputError("sending requests needs httpx", "replay", "pip install 'apexsim[replay]'") from None
    return httpx


class Session:
    """The state of one run: what has been sent, and whether to go on."""

    def __init__(self, work: Workload, target: Target, prompts: Prompts, patience: Patience, told: Told) -> None:
        self.work, self.target, self.prompts, self.patience, self.told = work, target, prompts, patience, told
        due = work.arrive - work.arrive[0]
        self.sent = [Sent(int(p), int(o), float(t)) for p, o, t in zip(work.prompt, work.output, due)]
        self.stopped, self.row, self.finished, self.begun = "", 0, 0, 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.busy = 0.0  # share of a core that this program took during the run

    def clock(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self.begun

    async def run(self, httpx: ModuleType) -> None:
        """The tries, then all requests; an interruption cuts off what is on its way and keeps the rest."""
        async with Lines(httpx, self.patience.quiet) as lines:
            await self._try(lines)
            self.begun, used = time.perf_counter(), time.process_time()
            self.told(0, len(self.sent), "requests")
            release = _cancelled_by_signals()
            try:
                await (self._closed if self.work.mode == "closed" else self._open)(lines)
                while self.tasks:
                    await asyncio.wait(self.tasks)
            except asyncio.CancelledError:
                self.stopped = INTERRUPTED
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)
            finally:
                release()
            self.busy = (time.process_time() - used) / max(self.clock(), 1e-9)
        for request in self.sent:
            if request.start != request.start:
                request.error = f"{NOT_SENT} ({self.stopped})"

    async def _try(self, lines: Lines) -> None:
        self.begun = time.perf_counter()
        for number in range(self.patience.tries):
            request = replace(self.sent[0], gaps=[], text=[])
            await self._ask(lines, request, self.target.body(self.prompts.spare(number), request.output))
            if request.error:
                hint = f"nothing was measured; asked {self.target.shown} for model {self.target.model}"
                raise InputError(self.target.hidden(f"the server does not serve: {request.error}"), self.target.shown, hint)

    async def _open(self, lines: Lines) -> None:
        for index, request in enumerate(self.sent):
            body = self._body(index)  # while there is time
            await asyncio.sleep(max(0.0, request.due - self.clock()))
            if self.stopped:
                return
            task = asyncio.create_task(self._one(lines, request, body))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _closed(self, lines: Lines) -> None:
        queue = iter(enumerate(self.sent))

        async def user() -> None:
            for index, request in queue:
                if self.stopped:
                    return
                await self._one(lines, request, self._body(index))

        self.tasks = {asyncio.create_task(user()) for _ in range(min(self.work.concurrency, len(self.sent)))}
        await asyncio.gather(*self.tasks)
        self.tasks = set()

    def _body(self, index: int) -> bytes:
        return self.target.body(self.prompts.of(index), self.sent[index].output)

    async def _one(self, lines: Lines, request: Sent, body: bytes) -> None:
        """One request of the run, and whether it is the failure that ends it."""
        await self._ask(lines, request, body)
        self.row = self.row + 1 if request.error else 0
        self.finished += 1
        self.told(self.finished, len(self.sent), "requests")
        if self.row >= self.patience.failures and not self.stopped:
            self.stopped = f"{self.row} requests in a row failed, the last with: {request.error}"

    async def _ask(self, lines: Lines, request: Sent, body: bytes) -> None:
        """Send one request and book what comes back.  Modifies `request` in place; never raises but when cancelled."""
        httpx = lines.httpx
        try:
            async with lines.line() as client:
                request.start = self.clock()
                await self._stream(client, request, body)
        except asyncio.CancelledError:
            request.error = request.error or f"cut off: {INTERRUPTED}"
            raise
        except (httpx.TimeoutException, TimeoutError):
            if not request.done:
                request.error = request.error or f"stalled: nothing came for {self.patience.quiet:g} s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if not request.done:
                broken = "refused" if isinstance(error, httpx.ConnectError) else "broken off"
                request.error = request.error or f"{broken}: {str(error) or type(error).__name__}"
        except Exception as error:  # of names, ports and protocols, by whichever layer: a failed request, never a lost run
            request.error = request.error or f"broken off: {type(error).__name__}: {error}"
        if not request.error and not (request.done or request.ended):
            request.error = "broken off: the stream ended before the answer"
        if not request.error and request.steps == 0:
            request.error = "no output"

    async def _stream(self, client: Any, request: Sent, body: bytes) -> None:
        post = client.stream("POST", self.target.address, content=body, headers=self.target.headers)
        loop, quiet = asyncio.get_running_loop(), self.patience.quiet
        async with asyncio.timeout(SLACK * quiet) as waiting, post as answer:  # bytes that are no events are no answer
            if answer.status_code != 200:
                said = detail(await _some(answer)) or answer.headers.get("location", "no reason given")
                request.error = f"HTTP {answer.status_code}: {said}"
                return
            other = ""
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    other = other or line.strip()
                    continue
                receive(request, line[5:].strip(), self.clock())
                if (waiting.when() or 0.0) < loop.time() + quiet:  # not for each of a thousand tokens a second
                    waiting.reschedule(loop.time() + SLACK * quiet)
                if request.steps > RUNAWAY * request.output + RUNAWAY_MORE:
                    request.error = f"{request.steps} chunks came for {request.output} tokens that were asked"
                    return
            if other and not (request.steps or request.error or request.done):
                request.error = f"no stream of events: {detail(other)}"


def _cancelled_by_signals() -> Callable[[], None]:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does, where the system has them and nobody ignores them; how to undo that."""
    loop, task, taken = asyncio.get_running_loop(), asyncio.current_task(), list[tuple[int, Any]]()
    assert task is not None
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                before = signal.getsignal(number)
                loop.add_signal_handler(number, task.cancel)
                taken.append((number, before))

    def release() -> None:
        for number, before in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before)

    return release


async def _some(answer: Any) -> str:
    """The beginning of an answer's text."""
    said = b""
    async for part in answer.aiter_bytes():
        said += part
        if len(said) > ENOUGH:
            break
    return said[:ENOUGH].decode(errors="replace")


class Lines:
    """Connections to the server, one client each: a common pool looks at all of its connections for every request."""

    def __init__(self, httpx: ModuleType, quiet: float) -> None:
        self.httpx, self.quiet = httpx, quiet
        self.trust = httpx.create_ssl_context()
        self.every: list[Any] = []
        self.idle: list[Any] = []

    async def __aenter__(self) -> Lines:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.every:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Any]:
        """A client that nobody else uses meanwhile."""
        if not self.idle:
            self.idle.append(self.httpx.AsyncClient(timeout=self.quiet, trust_env=False, verify=self.trust))
            self.every.append(self.idle[-1])
        client = self.idle.pop()
        try:
            yield client
        finally:
            self.idle.append(client)
