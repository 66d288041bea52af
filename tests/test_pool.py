"""A search gives the same results whoever does the work, and loses none when workers die or the user stops it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import apexsim
from apexsim import api
from apexsim.cli import main
from apexsim.cli.words import translated
from apexsim.errors import InputError
from apexsim.report.jsonout import study_json
from apexsim.report.plain import dumps
from apexsim.report.text import render
from apexsim.search import pool
from apexsim.search.assess import assess
from apexsim.search.study import Interrupted

ROOT = Path(__file__).parent.parent
SMALL = [
    "llama-3.1-70b", "--gpu", "h100-sxm", "--gpus", "8", "--prompt-len", "64", "--output-len", "8", "--num-requests", "20",
]  # fmt: skip
ASKED = {"gpu": "h100-sxm", "gpus": 8, "prompt_len": 64, "output_len": 8, "num_requests": 20}
HAS_RAY = find_spec("ray") is not None
Capture = pytest.CaptureFixture[str]


def told(**how: Any) -> str:
    """The JSON of the small search."""
    return dumps(study_json(apexsim.plan("llama-3.1-70b", **ASKED, **how)))


def command(*words: str, code: str = "from apexsim.cli import main") -> subprocess.CompletedProcess[bytes]:
    """`apexsim` with `words` in a process of its own, after `code`."""
    program = f"{code}\nimport sys; from apexsim.cli import outside; outside.PATIENCE = 1e6; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, timeout=240)


def refused(capsys: Capture, address: str) -> str:
    """The one line that says why a search on Ray was refused, in bounded time."""
    begun = time.monotonic()
    assert main(["plan", *SMALL, f"--ray={address}"]) == 2 and time.monotonic() - begun < 20.0
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err


# ---- every pool ------------------------------------------------------------------------------------------------------


def test_a_setting_survives_pickling() -> None:
    setting, precision, goal, _ = api.ask("llama-3.1-70b", **ASKED)
    plans = [apexsim.parse_plan(text, precision) for text in ("TP8", "PP2×TP4")]
    there, here = ([assess(x, goal, plan) for plan in plans] for x in (pickle.loads(pickle.dumps(setting)), setting))
    assert [x.metrics for x in there] == [x.metrics for x in here]  # type: ignore[union-attr]


def test_threads_give_what_one_after_the_other_gives() -> None:
    assert told(workers=3) == told(workers=1)


STATISTICS = """
import numpy as np
from apexsim.stats import segment_stats, stats_of
draw = np.random.default_rng(0).lognormal(size=(4, 40_000))
print(segment_stats(draw[0], draw[1] * 1e-3, np.ceil(draw[2]), np.ceil(draw[3])), stats_of(draw[0]))
"""


def test_statistics_do_not_depend_on_the_number_of_cores() -> None:
    """Ray gives each worker one thread of BLAS, whose sums of long arrays depend on that."""
    one, two = (
        subprocess.run([sys.executable, "-c", STATISTICS], check=True, capture_output=True,
                       env={**os.environ, "OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n}).stdout
        for n in "12"
    )  # fmt: skip
    assert one == two


# ---- --ray on the command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        (["m", "--ray"], ["--ray", "local", "m"]),
        (["--ray", "m"], ["--ray", "local", "m"]),
        (["--ray", "--all"], ["--ray", "local", "--all"]),
        (["--ray", "auto", "m"], ["--ray", "auto", "m"]),
        (["--ray", "10.0.0.1:6379"], ["--ray", "10.0.0.1:6379"]),
        (["--ray=ray://head:10001"], ["--ray", "ray://head:10001"]),
    ],
)
def test_the_address_may_be_left_out(words: list[str], understood: list[str]) -> None:
    assert translated("plan", words)[0] == understood


def test_ray_that_is_missing_is_named_with_its_extra(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'apexsim[ray]'" in refused(capsys, "local")


def test_ray_is_wanted_or_disabled() -> None:
    words = ["apex", "--model", "llama3-70b", "--num-gpus-per-node", "4", "--ray", "--disable-ray"]
    assert main(words) == 2


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:70000", "ray://head"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(InputError, match="cannot read the address"):
        pool._answers(address)


@pytest.fixture
def port() -> Iterator[Callable[[bytes], int]]:
    """Makes servers that give one answer to whoever comes; an empty one keeps silent.  Returns their ports."""
    lines: list[socket.socket] = []

    def serve(listening: socket.socket, answer: bytes) -> None:
        line, _ = listening.accept()
        lines.append(line)
        line.sendall(answer)

    def start(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        lines.append(listening)
        threading.Thread(target=serve, args=(listening, answer), daemon=True).start()
        return listening.getsockname()[1]

    yield start
    for line in lines:
        line.close()


def test_nobody_listens_there(port: Callable[[bytes], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        free = gone.getsockname()[1]
    with pytest.raises(InputError, match="no Ray cluster"):
        pool._answers(f"127.0.0.1:{free}")


def test_who_listens_there_is_not_ray(port: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ANSWER_S", 0.2)
    with pytest.raises(InputError, match="is not Ray"):
        pool._answers(f"127.0.0.1:{port(b'HTTP/1.1 400 Bad Request')}")
    with pytest.raises(InputError, match=r"no Ray cluster at .*timed out"):
        pool._answers(f"127.0.0.1:{port(b'')}")


# ---- a search on Ray -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray of two workers in this process, with a token of its own, so that it writes none into the user's home."""
    if not HAS_RAY:
        pytest.skip("Ray is not installed")
    module = pool._module(pool.LOCAL)
    context = module.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    module.address = context.address_info["gcs_address"]
    yield module
    module.shutdown()


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_ray_gives_the_bytes_that_threads_give() -> None:
    """From the command line, with a Ray that is started and stopped."""
    words = ["plan", *SMALL, "--json", "-"]
    plain, distributed = command(*words), command(*words, "--ray")
    assert plain.returncode == distributed.returncode == 0, distributed.stderr
    assert plain.stdout == distributed.stdout and distributed.stderr == b""


def test_a_cluster_that_runs_is_used(ray: Any) -> None:
    words = ["plan", *SMALL, "--json", "-"]
    there = command(*words, "--ray", ray.address)
    assert there.returncode == 0 and there.stdout == command(*words).stdout, there.stderr
    assert ray.is_initialized()


def test_apex_searches_on_ray(ray: Any, capsys: Capture) -> None:
    words = ["apex", "--model", "llama3-70b", "--num-gpus-per-node", "4", "--prompt-len", "64", "--output-len", "8",
             "--num-requests", "10"]  # fmt: skip
    assert main([*words, "--ray"]) == 0
    assert capsys.readouterr().out == (main([*words, "--disable-ray"]), capsys.readouterr().out)[1]


DIES_ONCE = """
import os, signal
from pathlib import Path
from apexsim.cli import main
from apexsim.search import assess, pool

def dies_once(shared, plans, folder={folder!r}):
    from apexsim.search.pool import _task
    mark = Path(folder) / plans[0].shorthand.replace("/", "_")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _task(shared, plans)

pool._task, assess.evaluate, pool.TASKS_EACH = dies_once, None, 2  # None: nothing is done here
"""


def test_a_worker_that_is_killed_loses_nothing(ray: Any, tmp_path: Path) -> None:
    """Every task kills its worker when it is first tried; Ray tries again, and says nothing amid the results."""
    words = ["plan", *SMALL, "--json", "-"]
    found = command(*words, "--ray", ray.address, code=DIES_ONCE.format(folder=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) > 2 and found.stdout == command(*words).stdout, found.stderr


def test_what_ray_gives_up_is_done_here(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(shared: list[Any], plans: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    monkeypatch.setattr(pool, "_task", dies)
    monkeypatch.setattr(pool, "TASKS_EACH", 1)
    monkeypatch.setattr(pool, "LARGEST_TASK", 100)
    assert told(ray="local") == told()


def test_workers_with_another_apexsim_are_refused(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.cache, "_version", lambda package: "9.9")
    with pytest.raises(InputError, match=r"run 0.*, here is 9\.9"):
        pool._probe(ray, "head:6379")


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def stopping(after: int) -> Callable[[int, int, str], None]:
    """A progress that presses Ctrl-C after some plans."""

    def progress(done: int, total: int, what: str) -> None:
        if done == after:
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_search_ranks_what_was_done(workers: int) -> None:
    with pytest.raises(Interrupted) as caught:
        apexsim.plan("llama-3.1-70b", **ASKED, workers=workers, progress=stopping(14))
    study = caught.value.study
    done, of = study.interrupted or (0, 0)
    counts = {step.name: step.count for step in study.funnel}
    assert done == 14 < of and counts["left by the interrupt"] == of - done and 0 < len(study.ranked) <= done
    assert counts["enumerated"] == sum(counts.values()) - counts["enumerated"]
    assert f"interrupted after 14 of {of} plans" in render(study)
    whole = {r.plan: r.value for r in apexsim.plan("llama-3.1-70b", **ASKED).ranked}
    assert all(whole[r.plan] == r.value for r in study.ranked)


def test_an_interrupt_before_any_plan_fits_is_just_that() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        apexsim.plan("llama-3.1-70b", **ASKED, workers=1, progress=stopping(1))
    assert not isinstance(caught.value, Interrupted)


def test_ray_is_interrupted_too(ray: Any) -> None:
    with pytest.raises(Interrupted, match="after 14 of 25 plans"):
        apexsim.plan("llama-3.1-70b", **ASKED, ray="local", progress=stopping(14))


def test_ctrl_c_shows_what_was_ranked_so_far(tmp_path: Path) -> None:
    """A process that gets a real SIGINT while it searches: report, JSON, exit code."""
    code = (
        "import os, signal; from apexsim.cli import main, outside; outside.Progress.__call__ = "
        "lambda self, done, total, what: os.kill(os.getpid(), signal.SIGINT) if done == 14 else None"
    )
    ended = command("plan", *SMALL, "--json", str(tmp_path / "part.json"), code=code)
    part = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
    assert (ended.returncode, ended.stderr) == (130, b"apexsim: interrupted\n")
    assert part["interrupted"] == {"done": 14, "of": 25} and part["ranked"]
    told = " ".join(ended.stdout.decode().split())
    assert "interrupted after 14 of 25 plans" in told and "11 not looked at, interrupted" in told  # 5 of 30 had lost by then


def test_a_whole_search_is_not_interrupted() -> None:
    assert json.loads(told())["interrupted"] is None
