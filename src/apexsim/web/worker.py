"""The process that works on questions: it can be killed, and it can reach nothing (floor 7).

It stands in an empty folder, knows none of the user's devices, engines or profiles, asks no hub, opens no connection, and opens files
only of the program itself, of Python and of its own folder.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from apexsim.errors import Infeasible, InputError
from apexsim.web.asked import Question
from apexsim.web.limits import Limits

OWN = ("APEXSIM_DEVICES", "APEXSIM_ENGINES", "APEXSIM_PROFILES")  # folders of the user's
TRACE = "trace"  # the uploaded one, in the worker's folder
READ = ("/etc/localtime", "/usr/share/zoneinfo/")  # what Python looks into
CLOSED = ("socket.connect", "socket.bind", "socket.sendto", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
          "os.fork", "os.forkpty")  # fmt: skip  # events that no question needs
MOVED = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")  # in its folder alone
LOOKED = ("os.listdir", "os.scandir", "glob.glob")
Tell = Callable[..., None]


def main(pipe: Any, folder: str, limits: Limits) -> None:
    """Work on what comes through the pipe until it is closed."""
    line = Line(pipe)
    _alone(folder)
    try:
        _warm()
        _bounded(limits.memory)
        sys.addaudithook(fenced(Path(folder)))
        line.tell("ready")
        while True:
            with suppress(KeyboardInterrupt):  # of a question that was answered by then
                _next(line, limits)
    except (EOFError, ConnectionError):
        return


class Line:
    """What goes through the pipe: each message whole, with the name of the question that it is of.  An interruption waits until a message
    is through, and is forgotten between two questions."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._asked, self._busy, self._late = pipe, "", False, False
        signal.signal(signal.SIGINT, self._heed)

    def _heed(self, *_: Any) -> None:
        if not self._busy:
            raise KeyboardInterrupt
        self._late = True

    def tell(self, event: str, /, **told: Any) -> None:
        """Send a message."""
        self._busy = True
        try:
            self._pipe.send((self._asked, event, told))
        finally:
            self._busy = False
        if self._late:
            self._late = False
            raise KeyboardInterrupt

    def hear(self) -> tuple[Question, tuple[str, bytes] | None]:
        """Wait for the next question."""
        self._busy = True
        try:
            self._asked, question, upload = self._pipe.recv()
        finally:
            self._busy = self._late = False
        return question, upload


def _alone(folder: str) -> None:
    """Out of reach of the terminal's Ctrl-C, of the user's folders and of the network's hub."""
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(folder)
    os.environ |= dict.fromkeys(OWN, folder) | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": folder}
    tempfile.tempdir = folder


def _warm() -> None:
    """Load what every question needs, and compile the simulator where that was not done yet."""
    from apexsim import api
    from apexsim.report import renderers

    study = api.plan("llama-3.1-8b", gpu="h100:2", prompt_len=64, output_len=8, num_requests=16, request_rate=4.0)
    renderers.rendered(study, "html", renderers.Look())


def _bounded(memory: int) -> None:
    """No question takes more memory than this [byte] on top of what the process has by now."""
    try:
        resource: Any = import_module("resource")
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):  # a system without either: the time is bounded all the same
        return


def fenced(folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """Raises where the process would leave its place, whatever asks it to."""
    from apexsim.engine import cache

    package = Path(__file__).resolve().parent.parent
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    written = _roots(folder, *([cache.FOLDER] if cache.FOLDER else []))
    roots = written + READ + _roots(package, package.parent.parent / "examples", sys.prefix, sys.base_prefix, *installed)

    def heed(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CLOSED or (event in MOVED and not all(_inside(path, written) for path in arguments if isinstance(path, (str, bytes)))):
            raise PermissionError(f"{event} is closed here")
        if event in LOOKED and not _inside(os.path.join(arguments[0] or ".", "x"), roots):
            raise PermissionError("folders are closed here")
        if event == "open" and not isinstance(arguments[0], int):
            _, mode, flags = arguments
            writes = any(sign in str(mode or "") for sign in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
            if not _inside(arguments[0], written if writes else roots) and os.fspath(arguments[0]) != os.devnull:
                raise PermissionError("files are closed here")

    return heed


def _roots(*folders: str | Path) -> tuple[str, ...]:
    """What a path inside of one of the folders begins with."""
    return tuple(os.path.realpath(folder) + os.sep for folder in folders)


def _inside(path: Any, roots: Sequence[str]) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    return os.path.realpath(os.fsdecode(path)).startswith(tuple(roots))


def _next(line: Line, limits: Limits) -> None:
    """One question, and what came of it."""
    question, upload = line.hear()
    try:
        _answered(question, upload, line.tell, limits)
    except (EOFError, ConnectionError):
        raise
    except (KeyboardInterrupt, Exception) as error:
        line.tell("failed", **_failure(error))


SAID: dict[type[BaseException], tuple[int, str, str, str]] = {  # code, kind, message, hint
    KeyboardInterrupt: (130, "interrupted", "cancelled", ""),
    MemoryError: (2, "bad input", "not enough memory for this question", "try fewer requests or shorter lists"),
    RecursionError: (2, "bad input", "the input is nested too deeply", ""),
    PermissionError: (2, "bad input", "files are not read from here", ""),
}


def _failure(error: BaseException) -> dict[str, Any]:
    """Why a question failed, as in the JSON of a failed command."""
    if isinstance(error, InputError):
        return {
            "code": 2,
            "kind": "bad input",
            "message": error.what,
            "where": error.where,
            "hint": error.hint,
            "record": dict(error.record),
        }
    if isinstance(error, Infeasible):
        return {"code": 3, "kind": "infeasible", "message": error.reason, "hint": error.nearest, "record": dict(error.record)}
    for kind, said in SAID.items():
        if isinstance(error, kind):
            return dict(zip(("code", "kind", "message", "hint"), said))
    last = traceback.extract_tb(error.__traceback__)[-1]  # nobody's question should lead here
    told = f"{type(error).__name__} at {os.path.basename(last.filename)}:{last.lineno}"
    return {"code": 1, "kind": "fault", "message": f"a fault of apexsim itself, please report it ({told})"}


def _answered(question: Question, upload: tuple[str, bytes] | None, tell: Tell, limits: Limits) -> None:
    """Tell the answer as JSON, and then as the parts of a page where that is wanted."""
    from apexsim.report import html
    from apexsim.report.renderers import Look, page_of, rendered
    from apexsim.search.curve import with_curves
    from apexsim.search.study import Study

    answer, stopped = _asked(question, upload, tell, limits)
    keeps = answer.best is not None if question.verb == "size" else bool(getattr(answer, "keeps", True))
    tell("answer", json=rendered(answer, "json", Look()), keeps=keeps, stopped=stopped)
    if question.page:
        curves = isinstance(answer, Study) and not stopped
        tell("page", parts=html.parts(page_of(with_curves(answer) if curves else answer)))
    tell("done")


def _asked(question: Question, upload: tuple[str, bytes] | None, tell: Tell, limits: Limits) -> tuple[Any, bool]:
    """(the answer, whether it was stopped before it was whole)."""
    from apexsim.cli.options import check_clashes
    from apexsim.cli.options import question as keywords
    from apexsim.search.study import Interrupted
    from apexsim.search.sweep import SweepInterrupted

    given = dict(question.given)
    check_clashes(question.verb, given)
    asked = keywords(given)
    if question.trace is not None:
        asked["trace"] = _requests(question, upload, asked, limits)
    _check_sizes(asked, question.model, limits)

    def progress(done: int, total: int, what: str) -> None:
        tell("progress", done=done, total=total, what=what)

    def seen(result: Any) -> None:
        tell("row", text=_words(result), fits=_fits(result))

    try:
        return VERBS[question.verb](question.model, asked, given, {"progress": progress, "seen": seen}), False
    except Interrupted as stop:
        return stop.study, True
    except SweepInterrupted as stop:
        return stop.sweep, True


def _requests(question: Question, upload: tuple[str, bytes] | None, asked: Mapping[str, Any], limits: Limits) -> Any:
    """The trace of a question: columns, an example, or what was uploaded, which lies in the worker's folder while it is read."""
    from apexsim.api import read_once
    from apexsim.workload.given import workload_of

    if isinstance(question.trace, dict):
        return workload_of(question.trace)
    file = read_once({**asked, "trace": TRACE if upload else question.trace})["trace"]
    if upload is not None:
        Path(TRACE).write_bytes(upload[1])
        try:
            file.work = replace(file.work, name=upload[0], source=upload[0])
        finally:
            Path(TRACE).unlink()
        file.path = upload[0]
    if file.work.size > limits.rows:
        told = f"the trace holds {file.work.size:,} requests"
        raise InputError(told, "trace", f"at most {limits.rows:,} are taken here: apexsim trace filter")
    return file


def _check_sizes(asked: Mapping[str, Any], model: Any, limits: Limits) -> None:
    """Raise InputError where a question is larger than this server takes, or names a GPU that is none of the catalogue."""
    from apexsim.hardware import counted
    from apexsim.workload.shared import stages_of

    lists = [value for value in (*asked.values(), *asked["settings"].values()) if isinstance(value, tuple)]
    count = math.prod([len(each) for each in lists if each] + [len(str(model).split(",")) if isinstance(model, str) else 1])
    if count > limits.combinations:
        raise InputError(f"{count:,} combinations are asked for", "", f"at most {limits.combinations} are: fewer values, or fewer lists")
    if asked.get("stages") and sum(stage.count for stage in stages_of(asked["stages"])) > limits.requests:
        raise InputError("the stages hold too many requests", "--stages", f"at most {limits.requests:,} are taken here")
    for gpu in _each(asked["gpu"]):
        inside = counted(str(gpu))[1]
        per_node = [inside["gpus"]] if "gpus" in inside else _each(asked["gpus"])
        for per, nodes in ((p, n) for p in per_node for n in ([inside["nodes"]] if "nodes" in inside else _each(asked["nodes"]))):
            if (per or 1) * (nodes or 1) > limits.gpus:
                raise InputError(f"{per} × {nodes or 1} GPUs are asked for", "--gpus", f"at most {limits.gpus:,} are taken here")


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else [value]


# ---- answers as they come ----------------------------------------------------------------------------------------------------


def _fits(result: Any) -> bool:
    """Whether a plan, or a combination, can be built and fits."""
    from apexsim.errors import Rejected

    return not isinstance(result, Rejected) and getattr(result, "study", result) is not None


def _words(result: Any) -> str:
    """What came of a plan, or of a combination, in a line."""
    from apexsim.errors import Rejected
    from apexsim.report.draw import sig
    from apexsim.search.assess import Assessed
    from apexsim.search.sweep import SweepPoint

    if isinstance(result, SweepPoint):
        name = ", ".join(map(str, result.values))
        return f"{name}: {_words(result.first) if result.study else result.why}"
    if isinstance(result, Rejected):
        return f"{result.shorthand}: {result.reason}"
    assert isinstance(result, Assessed)
    each = (("TTFT p95", "ttft", "p95"), ("TPOT p95", "tpot", "p95"), ("E2E mean", "e2e", "mean"))
    return f"{result.plan.shorthand}: " + ", ".join(f"{name} {sig(1e3 * result.metrics.latency(m, stat))} ms" for name, m, stat in each)


# ---- the verbs -------------------------------------------------------------------------------------------------------------

Told = Mapping[str, Callable[..., None]]  # progress, seen


def _plan(model: Any, asked: dict[str, Any], given: Mapping[str, Any], told: Told) -> Any:
    from apexsim import api
    from apexsim.calls import model_named
    from apexsim.search.sweep import axes_of

    several = model.split(",") if isinstance(model, str) and "," in model else model
    further = {name: given[name] for name in api.FURTHER}
    if not isinstance(model, dict) and axes_of(several, asked):
        return api.sweep(several, **asked, **further, **told)
    return api.plan(model_named(model), **asked, **further, **told)


def _simulate(model: Any, asked: dict[str, Any], given: Mapping[str, Any], told: Told) -> Any:
    from apexsim import api
    from apexsim.calls import model_named

    return api.simulate(model_named(model), given["plan"] or "", **asked)


def _size(model: Any, asked: dict[str, Any], given: Mapping[str, Any], told: Told) -> Any:
    from apexsim.cli.rows import SIZED
    from apexsim.search.inverse import size

    return size(model, **asked, **{opt.name: given[opt.name] for opt in SIZED}, progress=told["progress"])


def _fleet(model: Any, asked: dict[str, Any], given: Mapping[str, Any], told: Told) -> Any:
    from apexsim.cli.rows import FOLLOWED
    from apexsim.search.follow import fleet

    return fleet(model, **asked, **{opt.name: given[opt.name] for opt in FOLLOWED}, progress=told["progress"])


VERBS = {"plan": _plan, "simulate": _simulate, "size": _size, "fleet": _fleet}
