"""The application: what is answered under which path (floor 7).  Loaded only where it is served; needs the extra `web`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from apexsim.cli.options import flags_of_command
from apexsim.errors import InputError, shown
from apexsim.report import catalogue, html
from apexsim.report.jsonout import error_json
from apexsim.report.plain import clean, dumps
from apexsim.views import spoken
from apexsim.web import asked, form, openapi
from apexsim.web.fence import Fence
from apexsim.web.jobs import Full, Job, Jobs
from apexsim.web.limits import Limits
from apexsim.web.uploads import Uploads

JSON, BYTES, ASYNC = "application/json", "application/octet-stream", "respond-async"
ASSETS = {"page.css": "text/css", "uPlot.min.css": "text/css", "form.css": "text/css", "uPlot.iife.min.js": "text/javascript",
          "page.js": "text/javascript", "form.js": "text/javascript"}  # fmt: skip
FILE_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)  # of a report, whose scripts stand in it: it is nobody's origin
SLOWEST = 500_000  # byte/s of a body
LOOK, BEAT = 0.1, 10.0  # s between looks at a job, and between signs of life
STATUS = {"bad input": 422, "infeasible": 422, "time limit": 504, "interrupted": 409, "fault": 500}


class Refused(Exception):
    """A request that is not answered: why, and with which status."""

    def __init__(self, status: int, kind: str, message: str, where: str = "", hint: str = "") -> None:
        self.status, self.told = status, (kind, message, where, hint)
        super().__init__(message)


def application(limits: Limits, host: str = "127.0.0.1", names: Sequence[str] = ()) -> Fence:
    """All of it, inside of its fence."""
    jobs, uploads = Jobs(limits), Uploads(limits)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        jobs.start()
        yield
        await asyncio.to_thread(jobs.close)

    app = Starlette(routes=_routes(), lifespan=life, exception_handlers={
        Refused: _told, HTTPException: _http, ClientDisconnect: _gone, Exception: _fault})  # fmt: skip
    app.state.limits, app.state.jobs, app.state.uploads = limits, jobs, uploads
    return Fence(app, host, names)


def _routes() -> list[Route]:
    return [
        Route("/", _page),
        Route("/assets/{name}", _asset),
        Route("/api/openapi.json", lambda request: _said(openapi.document())),
        *(Route(f"/api/{name}", _list(name)) for name in openapi.LISTS),
        *(Route(f"/api/{verb}", _ask(verb), methods=["POST"]) for verb in asked.VERBS),
        Route("/api/traces", _upload, methods=["POST"]),
        Route("/api/jobs/{id}", _job, methods=["GET"]),
        Route("/api/jobs/{id}", _cancel, methods=["DELETE"]),
        Route("/api/jobs/{id}/events", _events),
        Route("/api/jobs/{id}/answer", _answer),
        Route("/api/jobs/{id}/parts", _parts),
        Route("/api/jobs/{id}/report.html", _report),
    ]


# ---- answers -------------------------------------------------------------------------------------------------------------


def _said(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(value), status, headers, JSON)


def _failure(status: int, kind: str, message: str, where: str = "", hint: str = "", **more: Any) -> Response:
    record = error_json(more.get("code", 2), kind, shown(message), shown(where), shown(hint), more.get("record", {}))
    return _said(record, status, {"retry-after": "5"} if status == 429 else None)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _failure(error.status, *error.told)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _failure(error.status_code, "refused", error.detail.lower())


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _fault(request: Request, error: Exception) -> Response:
    return _failure(500, "fault", f"a fault of apexsim itself, please report it ({type(error).__name__})", code=1)


# ---- the page ------------------------------------------------------------------------------------------------------------


async def _page(request: Request) -> Response:
    trusted = request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    return Response(form.page(request.app.state.limits, asks=trusted), media_type="text/html")


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ASSETS:
        raise HTTPException(404)
    return Response(html.web(name), media_type=ASSETS[name], headers={"cache-control": "no-cache"})


def _list(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        held = request.query_params.get("name", "")[:100].lower()
        rows = await asyncio.to_thread(_rows, name)
        return _said([row for row in rows if any(held in str(word).lower() for word in (row["name"], *row.get("aliases", ())))])

    return run


@cache
def _rows(name: str) -> list[dict[str, Any]]:
    """The whole list: a text that is sought never reaches what could take it for a file's name."""
    rows: list[dict[str, Any]] = getattr(catalogue, f"{name}_json")("")
    return rows


# ---- questions -----------------------------------------------------------------------------------------------------------


async def _body(request: Request, kind: str, most: int) -> bytes:
    """The body of a request, of one type, not too large and not too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise Refused(415, "refused", f"expected the type {kind}", "", f"write the header content-type: {kind}")
    if "content-encoding" in request.headers:
        raise Refused(415, "refused", "packed bodies are not read")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:12]) > most:
        raise Refused(413, "refused", f"at most {most:,} bytes are read")
    parts, size = [], 0
    expected = int(length) if "content-length" in request.headers else most
    try:
        async with asyncio.timeout(request.app.state.limits.late + expected / SLOWEST):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Refused(413, "refused", f"at most {most:,} bytes are read")
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "refused", "the body came too slowly") from None
    return b"".join(parts)


def _ask(verb: str) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        limits: Limits = request.app.state.limits
        body = await _body(request, JSON, limits.body)
        try:
            told = asked.strict(body, limits.depth)
        except InputError as error:
            raise Refused(400, "bad input", error.what, error.where, error.hint) from None
        later = ASYNC in request.headers.get("prefer", "").lower()
        try:
            question = await asyncio.to_thread(asked.question, verb, told, limits, later)
        except InputError as error:
            raise Refused(422, "bad input", spoken(error.what), _key(verb, error.where), _hint(error.hint)) from None
        job = _submitted(request, question)
        if later:
            return _said(_state(request, job), 202, {"location": f"/api/jobs/{job.id}"})
        return await _waited(request, job)

    return run


def _submitted(request: Request, question: asked.Question) -> Job:
    trace = question.trace
    upload = request.app.state.uploads.get(trace) if isinstance(trace, str) and trace.startswith("upload:") else None
    if upload is None and isinstance(trace, str) and trace.startswith("upload:"):
        raise Refused(422, "bad input", "this trace is not here any more", "trace", "upload it again")
    try:
        job: Job = request.app.state.jobs.submit(question, upload)
    except Full:
        raise Refused(429, "busy", "too many questions at once", "", "try again in some seconds") from None
    return job


async def _waited(request: Request, job: Job) -> Response:
    """The answer of a job, when it is there; nobody works for who has gone."""
    while not job.over:
        if await request.is_disconnected():
            request.app.state.jobs.cancel(job)
            return Response(status_code=400)
        await asyncio.sleep(LOOK / 4)
    return Response(job.answer, media_type=JSON) if job.state == "done" else _failed(job)


def _failed(job: Job) -> Response:
    error = {"kind": "interrupted", "message": "cancelled", **_error(job)}
    return _failure(STATUS.get(str(error["kind"]), 500), **error)


def _error(job: Job) -> dict[str, Any]:
    """Why a job failed, in the words of its keys."""
    if job.error is None:
        return {}
    told = {**job.error, "where": _key(job.question.verb, str(job.error["where"] or ""))}
    return {**told, "message": spoken(str(told["message"])), "hint": _hint(str(told["hint"] or ""))}


def _hint(hint: str) -> str:
    """What to try, without what is read from files: nobody can name one here."""
    return spoken(re.sub(r"[,;]? or (?:give )?(?:the path of )?(?:a |the )?(?:\.toml|\.json|config\.json)\b.*", "", hint))


def _key(verb: str, where: str) -> str:
    """The key that a message is about, "" where it is about none."""
    known = asked.options(verb)
    opt = flags_of_command(verb).get(where)
    name = asked.key(opt) if opt else {"MODEL": "model"}.get(where, where.partition(":")[0].removeprefix("--").replace("-", "_"))
    return name if name in known or name == "model" else ""


# ---- traces ---------------------------------------------------------------------------------------------------------------


async def _upload(request: Request) -> Response:
    data = await _body(request, BYTES, request.app.state.limits.upload)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(422, "bad input", "the trace is not UTF-8 text", "trace", "upload CSV or JSON lines, not packed") from None
    if not data.strip() or b"\0" in data:
        raise Refused(422, "bad input", "the trace holds no text", "trace", "upload CSV or JSON lines, not packed")
    name = "".join(c for c in request.query_params.get("name", "") if c.isalnum() or c in "._-")[-60:].lstrip("._-") or "trace"
    digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    request.app.state.uploads.put(f"upload:{digest}", (name, data))
    return _said({"trace": f"upload:{digest}", "bytes": len(data)})


# ---- jobs ----------------------------------------------------------------------------------------------------------------


def _found(request: Request) -> Job:
    job: Job | None = request.app.state.jobs.find(request.path_params["id"])
    if job is None:
        raise HTTPException(404, "no such job")
    return job


def _state(request: Request, job: Job) -> dict[str, Any]:
    """How far a job is."""
    error = _error(job)
    error.pop("record", None)
    return {"id": job.id, "state": job.state, "before": request.app.state.jobs.place(job), "done": job.done, "total": job.total,
            "what": job.what, "keeps": job.keeps, "stopped": job.stopped, "error": error or None}  # fmt: skip


async def _job(request: Request) -> Response:
    return _said(_state(request, _found(request)))


async def _cancel(request: Request) -> Response:
    job = _found(request)
    request.app.state.jobs.cancel(job)
    return _said(_state(request, job))


async def _events(request: Request) -> Response:
    job = _found(request)

    async def told() -> AsyncIterator[str]:
        last, quiet, sent = "", 0.0, 0
        while True:
            state, rows = _state(request, job), job.rows[sent:]
            if rows or json.dumps(state) != last:
                last, quiet = json.dumps(state), 0.0
                yield f"data: {json.dumps(clean({**state, 'first': sent, 'rows': rows}))}\n\n"
                sent += len(rows)
            if job.over:
                return
            await asyncio.sleep(LOOK)
            quiet += LOOK
            if quiet >= BEAT:
                quiet = 0.0
                yield ": here\n\n"

    return StreamingResponse(told(), media_type="text/event-stream")


async def _answer(request: Request) -> Response:
    job = _found(request)
    if not job.answer:
        raise HTTPException(404, "no answer yet")
    return Response(job.answer, media_type=JSON)


async def _parts(request: Request) -> Response:
    return _said(_page_of(_found(request)))


async def _report(request: Request) -> Response:
    job = _found(request)
    headers = {"content-security-policy": FILE_POLICY, "content-disposition": 'inline; filename="apexsim.html"'}
    return Response(html.filed(_page_of(job)), media_type="text/html", headers=headers)


def _page_of(job: Job) -> Any:
    if job.parts is None:
        raise HTTPException(404, "no page yet")
    return job.parts
