"""Evaluate many plans: one after the other, on threads, or on the workers of a Ray cluster (floor 5).

Whatever does the work, results come in the order of the plans and are the same.  Ray is a pool like the others: a task
whose worker dies is tried again by Ray, and what comes to nothing there is done here.
"""

from __future__ import annotations

import os
import pickle
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

from apexsim.engine import cache
from apexsim.errors import InputError, Rejected
from apexsim.plan.split import AnyPlan
from apexsim.search.assess import Assessed

Result = Assessed | Rejected
T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[AnyPlan], Result]  # what is to be done with a plan; picklable

MOST_THREADS = 8  # more gain nothing: what is not compiled runs on one at a time
LOCAL = "local"  # a Ray of one's own on this machine
LARGEST_TASK = 8  # plans: at some 20 ms each far above the 1-2 ms that a task costs Ray
TASKS_EACH = 4  # at least, for each worker of a search, so that none waits long for the last
AHEAD = 2  # tasks sent ahead for each worker
ANSWER_S = 5.0  # s, for an address to answer
PROBE_S = 60.0  # s, for the first worker: it has to be started and to import the package
RAY = "--ray"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to its makers
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # deaths of workers would be told on standard output, amid the results
}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4: with empty settings
SETTINGS = 4  # type of the frame with which a server answers


def evaluated(work: Callable[[T], R], plans: Sequence[T], workers: int = 0, ray: str | None = None) -> Generator[R, None, None]:
    """The result of each plan (or of whatever the work is done with), in order.

    workers: 0 takes the cores there are; ray: LOCAL, or what `ray.init` connects to."""
    count = workers or min(os.cpu_count() or 1, MOST_THREADS)
    if ray:
        return _on_ray(work, plans, workers, ray)
    if count == 1 or len(plans) < 2:
        return (work(plan) for plan in plans)
    return _on_threads(work, plans, count)


def _on_threads(work: Callable[[T], R], plans: Sequence[T], count: int) -> Generator[R, None, None]:
    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(work, plans)


# ---- Ray ------------------------------------------------------------------------------------------------------------


def _on_ray(work: Callable[[T], R], plans: Sequence[T], workers: int, address: str) -> Generator[R, None, None]:
    """Tasks of several plans each, a few ahead of the one whose results are next."""
    with _connected(address, workers) as (ray, count):
        count = workers or count
        size = max(1, min(LARGEST_TASK, len(plans) // (count * TASKS_EACH)))
        tasks = [plans[i : i + size] for i in range(0, len(plans), size)]
        run, shared = ray.remote(_task), ray.put(pickle.dumps(work))
        sent: deque[Any] = deque(run.remote([shared], task) for task in tasks[: count * AHEAD])
        for i, task in enumerate(tasks):
            try:
                found = pickle.loads(ray.get(sent.popleft()))
            except ray.exceptions.RayError:  # given up by Ray; what is wrong with a plan shows here as it would there
                found = [work(plan) for plan in task]
            if i + count * AHEAD < len(tasks):
                sent.append(run.remote([shared], tasks[i + count * AHEAD]))
            yield from found


def _task(shared: list[Any], plans: Sequence[Any]) -> bytes:
    """On a worker: the results of some plans, pickled here so that arrays arrive as own memory, not as Ray's (read-only)."""
    work = _held(shared[0])
    return pickle.dumps([work(plan) for plan in plans])


@lru_cache(maxsize=1)
def _held(reference: Any) -> Callable[[Any], Any]:
    """On a worker: the work, read once a search, so that what was priced for one plan serves the next."""
    import ray

    work: Callable[[Any], Any] = pickle.loads(ray.get(reference))
    return work


@contextmanager
def kept_open(ray: str | None, workers: int) -> Iterator[None]:
    """One connection to Ray for all that is evaluated meanwhile; nothing without Ray."""
    with _connected(ray, workers) if ray else nullcontext():
        yield


@contextmanager
def _connected(address: str, workers: int) -> Iterator[tuple[Any, int]]:
    """(Ray, its cores), shut down at the end where it was not running before; raises InputError where it cannot be reached."""
    ray = _module(address)
    if ray.is_initialized():
        yield ray, _cores(ray)
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    own = {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False} if address == LOCAL else {}
    if address not in (LOCAL, "auto"):
        _answers(address)
    try:
        try:
            ray.init(address=address, **own, **quiet)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
            what = f"no Ray cluster at '{address}': {why}"
            raise InputError(what, RAY, "check the address, and set RAY_AUTH_MODE=token where the cluster asks for it") from None
        _probe(ray, address)
        yield ray, _cores(ray)
    finally:
        ray.shutdown()


def _module(address: str) -> Any:
    """Ray, which reads these variables when it is imported; what the user has set stays."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # ours is no open door to this machine
    for name, value in (QUIET | (own if address == LOCAL and "RAY_AUTH_MODE" not in os.environ else {})).items():
        if "ray" not in sys.modules:
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed", RAY, "pip install 'apexsim[ray]'") from None
    return ray


def _cores(ray: Any) -> int:
    """Tasks that run at once."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _answers(address: str) -> None:
    """Raise InputError where nobody listens, or somebody who does not speak gRPC: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"cannot read the address '{address}'", RAY, "write HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                line.sendall(PREFACE)
                reply = line.recv(9)
                if len(reply) < 9 or reply[3] != SETTINGS:
                    raise InputError(f"what listens at '{address}' is not Ray", RAY, "give the address of a head node")
    except OSError as error:
        raise InputError(
            f"no Ray cluster at '{address}': {error.strerror or error}", RAY, "check the address; without one, Ray is started here"
        ) from None


def _probe(ray: Any, address: str) -> None:
    """Raise InputError where workers have another apexsim, engine or numba, or where none answers."""
    try:
        theirs = ray.get(ray.remote(cache.key).remote(), timeout=PROBE_S)
    except ray.exceptions.GetTimeoutError:
        raise InputError(f"no worker of the Ray cluster answered within {PROBE_S:.0f} s", RAY, "is it busy?") from None
    except ray.exceptions.RayError as error:
        what = f"the workers of the Ray cluster at '{address}' cannot run apexsim: {str(error).strip().rpartition(chr(10))[2]}"
        raise InputError(what, RAY, "install this version of apexsim on every node") from None
    if theirs != cache.key():
        raise InputError(
            f"the workers of the Ray cluster at '{address}' run {theirs}, here is {cache.key()}", RAY, "install this version on every node"
        )
