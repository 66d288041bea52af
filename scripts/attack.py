"""Hostile inputs by the hundred thousand: whatever comes in, the answer is one, or one line that says why there is none.

    python scripts/attack.py --cases 100000 --jobs 2        all kinds (make nightly)
    python scripts/attack.py --only config --cases 500      one kind

Each case is a command line and the files it names, drawn by Hypothesis from a kind of attack, and run in this process as
the console script runs it.  What must hold stands in `broken`.  Faults are told once per place with the smallest case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from hostile import KINDS, Case  # noqa: E402

CODES = (0, 2, 3, 4)
SECONDS = 20.0  # that a case may take
LINE = 1300  # characters of a refusal
ALIVE = re.compile(r"apexsim: (.* is running …|compiling the simulator .*)")


class TooSlow(BaseException):
    """A case took longer than it may; nothing in the package can catch it by mistake."""


@dataclass
class Ran:
    """What came of a case: exit code or exception, both streams, what became of its files."""

    code: int | None = None
    out: str = ""
    err: str = ""
    crash: str = ""  # the place
    trace: str = ""
    seconds: float = 0.0
    spoiled: tuple[str, ...] = ()  # inputs that are no longer what they were
    written: dict[str, bytes] = field(default_factory=dict)  # new files


# ---- running -------------------------------------------------------------------------------------------------------


def ran(case: Case, folder: Path) -> Ran:
    """Run a case in an empty folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    os.chdir(folder)
    with _environment({"APEXSIM_DEVICES": str(folder / ".devices"), **case.env}):
        found = _called(case.words)
    os.chdir(folder.parent)
    left = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and ".devices" not in path.parts}
    read = {name: content for name, content in case.files.items() if not case.replaced(name)}
    found.spoiled = tuple(name for name, content in read.items() if name not in left or left[name].read_bytes() != content)
    found.written = {name: path.read_bytes() for name, path in left.items() if name not in case.files}
    return found


def _called(words: tuple[str, ...]) -> Ran:
    from apexsim.cli.main import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    found, begun = Ran(), time.monotonic()
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found.code = main(list(words))
    except TooSlow:
        found.crash, found.trace = f"slower than {SECONDS:.0f} s {_place(True)}", traceback.format_exc()
    except SystemExit as stop:
        found.code = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        found.crash, found.trace = f"{type(error).__name__} at {_place()}", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout, sys.stderr = kept
    found.seconds = time.monotonic() - begun
    found.out, found.err = (s.buffer.getvalue().decode("utf-8", "replace") for s in streams)  # type: ignore[attr-defined]
    return found


def _place(slow: bool = False) -> str:
    """The innermost line of the package in the exception that is being handled."""
    frames = [f for f in traceback.extract_tb(sys.exc_info()[2]) if "apexsim" in f.filename]
    return f"{Path(frames[-1].filename).name}:{'' if slow else frames[-1].lineno} {frames[-1].name}" if frames else "?"


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# ---- what must hold ------------------------------------------------------------------------------------------------


def broken(case: Case, found: Ran) -> str:
    """What a case broke, in a word that is the same for the same fault; "" where all is well."""
    if found.crash:
        return found.crash
    if found.code not in CODES:
        return f"exit code {found.code}"
    if found.spoiled:
        return "an input was changed"
    refused = found.code in (2, 3)
    rest = [line for line in found.err.splitlines() if not ALIVE.fullmatch(line)]
    if any(not line.startswith("apexsim: ") for line in rest):
        return "a foreign line on standard error"
    if refused and len(rest) != 1:
        return f"{len(rest)} lines of refusal"
    if refused and len(rest[0]) > LINE:
        return "a refusal longer than a screen"
    if refused and "not enough memory" in rest[0]:
        return "memory"
    if any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in found.out + found.err):
        return "control characters"
    if refused and (found.out and "--json" not in " ".join(case.words)) and case.words[:2] != ("device", "add"):
        return "output beside a refusal"
    stray = [name for name in found.written if Path(name).name.startswith(".")]
    if stray or (refused and found.written and case.words[0] not in ("fit", "replay")):
        return f"a file left behind {stray}"
    return _unsound(case, found)


def _unsound(case: Case, found: Ran) -> str:
    """What is wrong with the JSON on standard output or in a file."""
    texts = [content.decode("utf-8", "replace") for file, content in found.written.items() if case.json_in(file)]
    texts += [found.out] if case.json_on_stdout else []
    for text in texts:
        try:
            value = json.loads(text, parse_constant=lambda word: (_ for _ in ()).throw(ValueError(word)))
        except ValueError as error:
            return f"no JSON: {str(error)[:40]}"
        if any(not math.isfinite(number) for number in _numbers(value)):
            return "a number that is none in JSON"
        name = "" if found.code in (2, 3) else case.schema
        fault = next(validator(name).iter_errors(value), None)
        if fault is not None:
            return f"schema {name}: {'/'.join(str(p) for p in fault.absolute_schema_path)[-60:]} {fault.message[:60]}"
    return ""


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)


@cache
def validator(name: str) -> Any:
    """The schema of an output, ready to use; "" is that of all outputs."""
    import jsonschema

    from apexsim.report.schema import schema_of

    return jsonschema.Draft202012Validator(schema_of(name))


# ---- many ----------------------------------------------------------------------------------------------------------


def warm_up() -> None:
    """Pay beforehand what only the first case would pay for, and what each would pay again."""
    from apexsim.cli import outside

    entry: Any = import_module("apexsim.cli.main")
    outside.PATIENCE = 1e6
    entry.everything = cache(entry.everything)
    signal.signal(signal.SIGALRM, _alarm)
    entry.main(["simulate", "llama-3.1-8b", "--plan", "TP1", "--gpu", "h100:1", "--prompt-len", "9", "--output-len", "2",
                "--num-requests", "2", "-o", os.devnull])  # fmt: skip


def _alarm(*_: object) -> None:
    raise TooSlow


def attacked(kind: str, cases: int, start: int) -> dict[str, tuple[Case, Ran]]:
    """Run so many cases of a kind: the faults by what was broken, each with its smallest case."""
    faults: dict[str, tuple[Case, Ran]] = {}
    folder = Path(tempfile.mkdtemp(prefix="attack-")) / "case"

    @seed(start)
    @settings(max_examples=cases, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(KINDS[kind])
    def one(case: Case) -> None:
        found = ran(case, folder)
        fault = broken(case, found)
        if fault and (fault not in faults or case.size < faults[fault][0].size):
            faults[fault] = case, found

    try:
        one()
    finally:
        os.chdir(ROOT)
        shutil.rmtree(folder.parent, ignore_errors=True)
    return faults


def _job(task: tuple[str, int, int]) -> tuple[str, int, float, dict[str, tuple[Case, Ran]]]:
    begun = time.monotonic()
    warm_up()
    faults = attacked(*task)
    return task[0], task[1], time.monotonic() - begun, faults


def main() -> int:
    """Attack, and tell; 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--only", default="", help=f"kinds, with commas: {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="show where exceptions came from")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(KINDS)
    if asked.jobs < 1 or asked.cases < 1 or not set(names) <= set(KINDS):
        parser.error(f"--jobs and --cases are 1 or more, --only names some of {', '.join(KINDS)}")
    each, parts = -(-asked.cases // len(names)), asked.jobs
    tasks = [(name, -(-each // parts), asked.seed + 1000 * part) for name in names for part in range(parts)]
    bad = done = 0
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        for kind, count, seconds, faults in pool.imap_unordered(_job, tasks):
            print(f"{kind:12} {count:7,} cases {seconds:7.1f} s  {len(faults)} faults", flush=True)
            done, bad = done + count, bad + len(faults)
            for fault, (case, found) in faults.items():
                print(f"  {fault}\n    {case.told()}\n    exit {found.code} {found.seconds:.1f} s: {found.err[:300]!r}")
                if asked.trace and found.trace:
                    print(found.trace)
    print(f"{done:,} cases, {bad} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
