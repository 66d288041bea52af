"""Questions in a queue, each worked on by a process that can be killed (floor 7)."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apexsim.web import worker
from apexsim.web.asked import Question
from apexsim.web.limits import Limits

TICK = 0.1  # s between two looks at a worker
GRACE = 2.0  # s in which a worker that was asked to stop tells what it has
STARTS = 300.0  # s until a worker must be ready: the simulator may have to be compiled first
STARTING = "getting ready; the first time the simulator is compiled, which takes up to a minute"
ROWS = 400  # that are shown while an answer comes
OVER = ("done", "failed", "cancelled")


class Full(Exception):
    """The queue is full."""


@dataclass(slots=True)
class Job:
    """A question and what is known of its answer.

    name: the same of the same question; state: queued, running, done, failed or cancelled; rows: what came of each plan so far; answer: its
    JSON; parts: of its page; stopped: whether it is of what was done when it was cancelled; error: as in the JSON of a failed command.
    """

    id: str
    name: str
    question: Question
    upload: tuple[str, bytes] | None = None
    state: str = "queued"
    done: int = 0
    total: int = 0
    what: str = ""
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    answer: str = ""
    keeps: bool = True
    stopped: bool = False
    parts: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in OVER


class Jobs:
    """The queue and its workers.  work: what each process runs."""

    def __init__(self, limits: Limits, work: Callable[[Any, str, Limits], None] = worker.main) -> None:
        self.limits, self.run = limits, work
        self._lock = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._kept: OrderedDict[str, Job] = OrderedDict()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the workers."""
        self._threads = [threading.Thread(target=_Runner(self).run, daemon=True) for _ in range(self.limits.jobs)]
        for thread in self._threads:
            thread.start()

    def submit(self, question: Question, upload: tuple[str, bytes] | None = None) -> Job:
        """The job of a question: one that has answered it already, else a new one; raises Full.  What is still worked on is shared by
        nobody, so that who stops it stops it for himself alone."""
        name = _name(question, upload)
        with self._lock:
            found = next((job for job in self._kept.values() if job.name == name and job.state == "done" and not job.stopped), None)
            if found is not None:
                self._kept.move_to_end(found.id)
                return found
            if len(self._waiting) >= self.limits.queue:
                raise Full
            job = Job(secrets.token_urlsafe(16), name, question, upload)
            self._kept[job.id] = job
            self._waiting.append(job)
            self._drop_old()
            self._lock.notify()
            return job

    def _drop_old(self) -> None:
        over = [name for name, job in self._kept.items() if job.over]
        for name in over[: max(0, len(self._kept) - self.limits.kept)]:
            del self._kept[name]

    def find(self, name: str) -> Job | None:
        """The job of this id."""
        with self._lock:
            return self._kept.get(name)

    def place(self, job: Job) -> int:
        """How many questions are before it."""
        with self._lock:
            return self._waiting.index(job) if job in self._waiting else 0

    def cancel(self, job: Job) -> None:
        """Stop a job, wherever it is."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
        job.stop.set()

    def take(self) -> Job | None:
        """The next job, when there is one; None when all is over."""
        with self._lock:
            while not self._waiting and not self._closed:
                self._lock.wait()
            return None if self._closed else self._waiting.popleft()

    @property
    def closed(self) -> bool:
        """Whether the server has ended."""
        return self._closed

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join(timeout=5.0)


def _name(question: Question, upload: tuple[str, bytes] | None) -> str:
    """What is the same for the same question."""
    told = repr((question.verb, question.model, sorted(question.given.items()), question.trace, question.page, upload and upload[0]))
    return hashlib.sha256(told.encode()).hexdigest()


class _Runner:
    """A thread with a worker process, which is started anew after it had to be killed."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.limits = jobs, jobs.limits
        self.folder = tempfile.mkdtemp(prefix="apexsim-web-")
        self.process: Any = None
        self.pipe: Any = None
        self.ready = False

    def run(self) -> None:
        """Until the server ends."""
        try:
            self._start()
            while (job := self.jobs.take()) is not None:
                self._work(job)
                if not self.process.is_alive() and not self.jobs.closed:
                    self._start()
        finally:
            self._kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=self.jobs.run, args=(theirs, self.folder, self.limits), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False

    def _kill(self) -> None:
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join(timeout=5.0)

    def _work(self, job: Job) -> None:
        """One job, to whatever end."""
        job.state, job.what = "running", "" if self.ready else STARTING
        begun, asked_to_stop = time.monotonic(), 0.0
        sent = False
        while not job.over:
            now = time.monotonic()
            if self.ready and not sent:
                begun, sent, job.what = now, True, ""
                self.pipe.send((job.id, job.question, job.upload))
            if (job.stop.is_set() or self.jobs.closed) and not asked_to_stop:
                asked_to_stop = now
                self._interrupt(sent)
            if asked_to_stop and not sent:
                return self._end(job, late=False)
            late = now - begun > (self.limits.seconds if sent else STARTS)
            if late or self.jobs.closed or (asked_to_stop and now - asked_to_stop > GRACE):
                self._kill()
                return self._end(job, late)
            self._hear(job, bool(asked_to_stop))

    def _interrupt(self, sent: bool) -> None:
        """As Ctrl-C does: a search tells what it has found by then."""
        if sent and hasattr(os, "setsid"):
            with contextlib.suppress(OSError):
                os.kill(self.process.pid, signal.SIGINT)

    def _end(self, job: Job, late: bool) -> None:
        """The job of a worker that was killed."""
        if late:
            told = f"it was not answered within {self.limits.seconds:g} s, which one question gets here"
            job.error = {"code": 2, "kind": "time limit", "message": told, "where": None, "hint": "ask less, or apexsim on a command line"}
        job.state = "failed" if late else "cancelled"

    def _hear(self, job: Job, stopping: bool) -> None:
        """What the worker tells next, if it does within a tick."""
        try:
            if not self.pipe.poll(TICK):
                return
            name, kind, told = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(timeout=5.0)
            told = {"code": 2, "kind": "bad input", "message": "the process that worked on it has died, of too little memory as a rule"}
            name, kind = job.id, "failed"
        if kind == "ready":
            self.ready = True
        if name != job.id:  # a last word of the question before
            return
        HEARD[kind](job, told, stopping)


def _progress(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    job.done, job.total, job.what = told["done"], told["total"], told["what"]


def _row(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    if len(job.rows) < ROWS:
        job.rows.append(told)


def _answer(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    job.answer, job.keeps, job.stopped = told["json"], told["keeps"], told["stopped"]


def _page(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    job.parts = told["parts"]


def _done(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    job.state = "done"


def _failed(job: Job, told: Mapping[str, Any], stopping: bool) -> None:
    job.error = {"where": None, "hint": None, **told}
    job.state = "cancelled" if stopping else "failed"


HEARD = {"row": _row, "progress": _progress, "answer": _answer, "page": _page, "done": _done, "failed": _failed}
