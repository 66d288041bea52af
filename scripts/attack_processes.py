"""Hostile surroundings, by hand: files, streams, signals, caches, environments and servers that a process can meet.

    python scripts/attack_processes.py                  all rows
    python scripts/attack_processes.py --only cache     those whose group begins so

Each row runs `python -m apexsim` as a process of its own, in a folder of its own.  What must hold is what must hold of
the generated attacks (`broken` in scripts/attack.py); a signal may also end in 130.  POSIX only, as its shell is.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "scripts")]

from attack import Ran, broken  # noqa: E402
from hostile import MADE, STANDING, Case  # noqa: E402

MEMORY = 6 << 30  # byte of address space that a process may take
PATIENCE, COMPILES = 90.0, 400.0  # s that a process may take; with the engine to compile
STOPPED = (130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)  # the last ones: while Python itself begins or ends
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apexsim"
RUN = f"{sys.executable} -m apexsim"
EIGHT = "llama-3.1-8b --gpu h100:1"
SMALL = f"{EIGHT} {' '.join(MADE)}"


@dataclass(frozen=True)
class Row:
    """One attack: a line for a shell, in which $A is apexsim; what is prepared; what may come out.

    kept: files that must be what they were; codes: allowed exit codes; lines: most lines on standard error; stop: signal
    and delay [s]; loud: the line's own output is not looked at.
    """

    group: str
    line: str
    prepare: Callable[[Path], None] = lambda folder: None
    env: dict[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0, 2, 3, 4)
    stop: tuple[str, float] | None = None
    loud: bool = False


def done(row: Row, folder: Path) -> Ran:
    """Run a row."""
    for name, content in STANDING.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    shutil.copy(ROOT / "src/apexsim/data/gpus/h100-sxm.toml", folder / "g.toml")
    row.prepare(folder)
    before = {name: (folder / name).read_bytes() for name in row.kept}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "A": RUN, "APEXSIM_DEVICES": str(folder / ".devices"), **row.env}
    begun = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", "set -o pipefail; " + (f"exec {row.line}" if row.stop else row.line)], cwd=folder, env={k: v for k,
            v in env.items() if v != "UNSET"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )  # fmt: skip
    if row.stop:
        time.sleep(row.stop[1])
        process.send_signal(getattr(signal, row.stop[0]))
    found = Ran()
    try:
        out, err = process.communicate(timeout=COMPILES if "cache" in row.group else PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        found.crash = "too slow"
    found.code, found.seconds = process.returncode, time.monotonic() - begun
    found.out, found.err = ("" if row.loud else out.decode("utf-8", "replace")), err.decode("utf-8", "replace")
    found.spoiled = tuple(n for n, b in before.items() if not (folder / n).is_file() or (folder / n).read_bytes() != b)
    hidden = [p.relative_to(folder) for p in folder.rglob(".*") if p.is_file()]
    found.written = {str(p): b"" for p in hidden if p.parts[0] not in (".devices", ".cache")}
    return found


def judged(row: Row, found: Ran) -> str:
    """What a row broke; "" where all is well."""
    if "Traceback" in found.err or "Exception ignored" in found.err:
        return "traceback: " + found.err.strip().splitlines()[-1][:100]
    if found.code not in row.codes:
        return found.crash or f"exit code {found.code}"
    if found.code in STOPPED:
        found.code = 2
    if "2>" in row.line:  # nobody can hear the refusal
        return ""
    kept, found.written = found.written, {}
    return broken(Case(tuple(row.line.split())), found) or (f"a file left behind: {sorted(kept)}" if kept else "")


# ---- outputs over inputs -------------------------------------------------------------------------------------------

PAIRS = (  # the command with {} for what is written, and the file that it reads
    (f"$A simulate {EIGHT} --plan TP1 --trace t.jsonl --json {{}}", "t.jsonl"), (f"$A plan {EIGHT} --trace t.csv -o {{}}", "t.csv"),
    (f"$A simulate llama-3.1-8b --gpu g.toml:1 --plan TP1 {' '.join(MADE)} --json {{}}", "g.toml"),
    (f"$A plan llama-3.1-8b --gpu npu:1 {' '.join(MADE)} -o {{}}", "npu/device.toml"),
    (f"$A plan llama-3.1-8b --gpu npu:1 {' '.join(MADE)} --json {{}}", "npu/gemm_0.csv"), ("$A validate m.csv --json {}", "m.csv"),
    ("$A validate m.csv -o {}", "m.csv"),
    ("$A trace tokenize texts.json --chars-per-token 4 -o {}", "texts.json"), ("$A trace describe t.csv --plot {}", "t.csv"),
    ("$A trace synth --like t.jsonl -o {}", "t.jsonl"),
    ("$A replay --compare run.json --model llama-3.1-8b --plan TP1 --gpu h100:1 --json {}", "run.json"),
    ("$A replay t.jsonl --url http://127.0.0.1:9 --model m -o {}", "t.jsonl"),
    ("$A fit model --gpu h100:1 --json {}", "model/config.json"), ("$A device check npu --json {}", "npu/device.toml"),
    (f"$A fit {EIGHT} --log log --json {{}}", "log"),
    (f"$A simulate mixtral-8x7b --gpu h200:2 --plan TP2 {' '.join(MADE)} --expert-load e.json -o {{}}", "e.json"),
)  # fmt: skip


def _more_files(folder: Path) -> None:
    (folder / "model").mkdir()
    shutil.copy(next((ROOT / "src/apexsim/data/models").glob("*Qwen3-8B.json")), folder / "model/config.json")
    shutil.copy(ROOT / "examples/qwen3-8b-startup.log", folder / "log")
    (folder / "e.json").write_text("[10, 1, 1, 1, 1, 1, 1, 1]")
    for _, name in PAIRS:
        flat = name.replace("/", "_")
        if not (folder / f"sym_{flat}").exists():
            (folder / f"sym_{flat}").symlink_to(folder / name)
            (folder / f"sym2_{flat}").symlink_to(f"sym_{flat}")
            os.link(folder / name, folder / f"hard_{flat}")
    (folder / "here").symlink_to(".")


def overwriting() -> Iterator[Row]:
    """Every pair in every spelling."""
    for line, name in PAIRS:
        flat, base = name.replace("/", "_"), Path(name)
        for way in (name, f"./{name}", f"here/{name}", f'"$PWD/{name}"', f"sym_{flat}", f"sym2_{flat}", f"hard_{flat}",
            f"/proc/self/cwd/{name}",
                    f"{base.parent}/../$(basename $PWD)/{name}" if base.parent == Path(".") else f"{base.parent}/../{name}"):  # fmt: skip
            yield Row("overwrite", line.format(way), _more_files, kept=(name,))


def unwritable() -> Iterator[Row]:
    """Places where nothing can be written."""
    lines = (f"$A simulate {SMALL} --plan TP1 --json {{}}", f"$A plan {SMALL} -o {{}}", "$A trace convert t.jsonl -o {}",
        "$A trace describe t.jsonl --plot {}", "$A gpus --json {}",
             f"$A fit {EIGHT} --json {{}}")  # fmt: skip
    for line in lines:
        for place in ("no/such/x", "npu", "npu/", "'' ", "/dev/full", "/proc/x", "/sys/x", "t.jsonl/x", "$(printf 'x%.0s' {1..300})",
            "loop", "dangling/x", "'a\nb'", "$'\\e[2J'",
                      "$'\\xff'", "/proc/self/mem", "tiny/x"):  # fmt: skip
            yield Row("unwritable", line.format(place), _odd_places, codes=(0, 2))


def _odd_places(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/at/all")


# ---- streams -------------------------------------------------------------------------------------------------------


def streams() -> Iterator[Row]:
    """Closed, full and broken streams."""
    lines = ("$A gpus", f"$A simulate {SMALL} --plan TP1", f"$A simulate {SMALL} --plan TP1 --json", "$A trace convert t.jsonl",
        "$A --help", "$A plan --help", "$A fit zzz --gpu h100:1",
             "$A fit zzz --gpu h100:1 --json", "$A schema", "$A --version", f"$A fit {EIGHT} --log -",
        "$A trace describe /dev/stdin")  # fmt: skip
    for line in lines:
        for wiring in (
            ">&-",
            "2>&-",
            "<&-",
            ">&- 2>&-",
            "<&- >&- 2>&-",
            "> /dev/full",
            "2> /dev/full",
            "| head -c 1 > /dev/null",
            "| true",
            "2>&1 | head -c 1 > /dev/null",
        ):
            yield Row("streams", f"{line} {wiring}", loud=True, codes=(0, 2, 3, 4) if "|" not in wiring else (0, 2, 3, 4, 141))
    for source in ("/dev/zero", "/dev/urandom", "/dev/null", "t.jsonl"):
        yield Row("stdin", f"$A trace describe /dev/stdin < {source}")
        yield Row("stdin", f"$A fit {EIGHT} --log - < {source}")
        yield Row("stdin", f"$A fit /dev/stdin --gpu h100:1 < {source}")
        yield Row("stdin", f"$A trace convert - < {source}")
        yield Row("stdin", f"$A trace tokenize /dev/stdin --chars-per-token 4 < {source}")


# ---- signals -------------------------------------------------------------------------------------------------------


def signals() -> Iterator[Row]:
    """Signals at moments of all kinds, imports and compilation among them."""
    chance = random.Random(7)
    lines = (f"$A plan llama-3.1-70b --gpu h100:8 --trace {ROOT}/examples/creation_05.jsonl -o report",
        f"$A simulate {SMALL} --plan TP1", "$A trace convert big.csv -o made", f"$A fit {EIGHT}",
             f"$A validate {ROOT}/validation/closed_loop.csv", "$A device check npu")  # fmt: skip
    for line in lines:
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            for late in (0.15, 0.3, 0.6, 1.5):
                yield Row("signals", line, _big, codes=(0, 2, *STOPPED), stop=(name, late * chance.uniform(0.7, 2.0)))
    for name in ("SIGTERM", "SIGINT"):
        for late in (2.5, 6.0, 12.0):
            yield Row(
                "signals compiling",
                f"$A simulate {SMALL} --plan TP1",
                codes=STOPPED,
                env={"XDG_CACHE_HOME": "", "HOME": "/tmp/nothing-here", "NUMBA_CACHE_DIR": "cold"},
                stop=(name, late),
            )


def _big(folder: Path) -> None:
    (folder / "big.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "1,2,3\n" * 500_000)


# ---- the compile cache ---------------------------------------------------------------------------------------------


def _cache(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A copy of the user's own cache, changed."""

    def prepare(folder: Path) -> None:
        shutil.copytree(CACHE, folder / ".cache/apexsim")
        change(folder / ".cache/apexsim")

    return prepare


def _each(content: Callable[[bytes], bytes], pattern: str = "*.code") -> Callable[[Path], None]:
    def change(cache: Path) -> None:
        for file in cache.rglob(pattern):
            file.write_bytes(content(file.read_bytes()))

    return change


def _nameless(content: bytes) -> bytes:
    import hashlib

    body = b"{}\nnot machine code"
    return hashlib.blake2b(body, digest_size=32).digest() + body


def _folder_instead(cache: Path) -> None:
    for file in list(cache.rglob("*.code"))[:2]:
        file.unlink()
        file.mkdir()


def caches() -> Iterator[Row]:
    """Damaged, full and missing caches."""
    line = f"$A simulate {SMALL} --plan TP1"
    changes: dict[str, Callable[[Path], None]] = {
        "empty": _each(lambda b: b""), "half": _each(lambda b: b[: len(b) // 2]), "garbage": _each(lambda b: b"x" * len(b)),
        "flipped": _each(lambda b: b[:-9] + b"x" + b[-8:]),
        "outer only": _each(lambda b: b"", "kernel.run-*"), "nameless": _each(_nameless), "folders": _folder_instead,
        "loop": lambda cache: (shutil.rmtree(cache), cache.symlink_to(cache.name)),  # type: ignore[dict-item,return-value]
        "a file": lambda cache: (shutil.rmtree(cache), cache.write_text("x")),  # type: ignore[dict-item,return-value]
        "read only": lambda cache: [p.chmod(0o500) for p in (*cache.rglob("*"), cache) if p.is_dir()],
        # type: ignore[dict-item,return-value]
        "open to all": lambda cache: [p.chmod(0o777) for p in (*cache.rglob("*"), cache) if p.is_dir()],
        # type: ignore[dict-item,return-value]
    }  # fmt: skip
    for change in changes.values():
        yield Row("cache", line, _cache(change), env={"XDG_CACHE_HOME": "$F/.cache"})
    for env in ({"HOME": "UNSET"}, {"HOME": "/nonexistent"}, {"HOME": ""}, {"XDG_CACHE_HOME": "relative"},
        {"XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null"}, {"NUMBA_CACHE_DIR": "/dev/null"},
                {"TMPDIR": "/nonexistent"}, {"XDG_CACHE_HOME": "/proc", "TMPDIR": "/proc", "HOME": "/proc"},
        {"XDG_DATA_HOME": "/dev/null"}, {"HF_HOME": "/dev/null"}, {"HF_HUB_CACHE": "\x01"}):  # fmt: skip
        yield Row("homes", f"$A fit {EIGHT}", env=env)
        yield Row("homes", "$A trace describe t.jsonl", env=env)
        yield Row("homes", "$A fit no/such-model --gpu h100:1", env=env)
    yield Row("cache cold", line, env={"XDG_CACHE_HOME": "/proc", "TMPDIR": "/proc", "HOME": "/proc"})


# ---- environments --------------------------------------------------------------------------------------------------

ODD_ENVIRONMENTS = (
    {"COLUMNS": "²"}, {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "1"}, {"COLUMNS": "9" * 30}, {"COLUMNS": "9" * 5000},
    {"COLUMNS": "80 "}, {"COLUMNS": "x"}, {"COLUMNS": "12", "LINES": "²"},
    {"LINES": "9" * 30}, {"TERM": ""}, {"TERM": "nonsense"}, {"TERM": "dumb"}, {"TERM": "UNSET"}, {"NO_COLOR": "1"},
    {"FORCE_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}, {"LANG": "C", "LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LANG": "tr_TR.UTF-8"}, {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "utf-16"}, {"PYTHONIOENCODING": "cp1252:strict"}, {"PYTHONWARNINGS": "error"},
    {"PYTHONWARNINGS": "default"}, {"PYTHONDEVMODE": "1"},
    {"PYTHONOPTIMIZE": "2"}, {"PYTHONDONTWRITEBYTECODE": "1"}, {"PYTHONUNBUFFERED": "1"}, {"PYTHONHASHSEED": "123"},
    {"PYTHONSAFEPATH": "1"}, {"TZ": "Nowhere/Else"}, {"TZ": "\x01"},
    {"OMP_NUM_THREADS": "abc"}, {"OMP_NUM_THREADS": "0"}, {"NUMBA_NUM_THREADS": "abc"}, {"NUMBA_NUM_THREADS": "0"},
    {"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_DISABLE_JIT": "x"},
    {"NUMBA_DEBUG_CACHE": "x"}, {"APEXSIM_DEVICES": ""}, {"APEXSIM_DEVICES": "/dev/null"}, {"APEXSIM_DEVICES": "~nouser/x"},
    {"APEXSIM_DEVICES": "t.jsonl"}, {"_APEXSIM_COMPLETE": "nonsense"},
    {"_APEXSIM_COMPLETE": "complete_bash"}, {"_TYPER_COMPLETE_ARGS": "²"}, {"MPLBACKEND": "nonsense"}, {"MPLCONFIGDIR": "/dev/null"},
    {"HTTP_PROXY": "http://127.0.0.1:9"}, {"PYTHONSTARTUP": "/dev/zero"},
    {"RICH_FORCE_TERMINAL": "1"}, {"TYPER_USE_RICH": "0"}, {"TERMINAL_WIDTH": "x"}, {"TERMINAL_WIDTH": "²"}, {"TTY_COMPATIBLE": "1"},
)  # fmt: skip


def environments() -> Iterator[Row]:
    """Odd variables."""
    for env in ODD_ENVIRONMENTS:
        codes = (0, 2)
        yield Row("environment", f"$A simulate {SMALL} --plan TP1", env=env, codes=codes, loud="FORCE" in str(env) or "utf-16" in str(env))
        yield Row("environment", "$A plan --help", env=env, codes=codes, loud=True)
        if "MPL" in str(env) or "TMP" in str(env):
            yield Row("environment", "$A trace describe t.jsonl --plot x.png", env=env, codes=codes)
            yield Row(
                "environment",
                "$A replay --compare run.json --model llama-3.1-8b --plan TP1 --gpu h100:1 --plot x.png",
                env=env,
                codes=codes,
            )


# ---- files ---------------------------------------------------------------------------------------------------------


def _bombs(folder: Path) -> None:
    with gzip.open(folder / "bomb", "wb", 1) as file:
        for _ in range(64):
            file.write(b"[" + b" " * (1 << 22))
    with gzip.open(folder / "bomb0", "wb", 1) as file:
        for _ in range(64):
            file.write(bytes(1 << 22))
    (folder / "gzgz").write_bytes(gzip.compress(gzip.compress(STANDING["t.jsonl"])))
    (folder / "gzcut").write_bytes(gzip.compress(STANDING["t.jsonl"])[:-9])
    (folder / "gzhead").write_bytes(b"\x1f\x8b")
    with zipfile.ZipFile(folder / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.jsonl", STANDING["t.jsonl"])
    with tarfile.open(folder / "tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("t.jsonl")
        info.size = len(STANDING["t.jsonl"])
        archive.addfile(info, io.BytesIO(STANDING["t.jsonl"]))
    (folder / "deep").write_bytes(b"[" * 200_000 + b"]" * 200_000)
    (folder / "deepobj").write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    (folder / "twice").write_bytes(b'{"model_type":"llama","model_type":"qwen3","hidden_size":4096,"hidden_size":5}')
    (folder / "utf16").write_bytes(STANDING["t.jsonl"].decode().encode("utf-16"))
    (folder / "bom").write_bytes(b"\xef\xbb\xbf" + STANDING["t.jsonl"])
    (folder / "latin").write_bytes("TIMESTAMP,ContextTokens,GeneratedTokens\né,1,1\n".encode("latin-1"))
    (folder / "empty").write_bytes(b"")
    (folder / "blank").write_bytes(b"\n" * 1000)
    (folder / "nul").write_bytes(bytes(1000))
    (folder / "long").write_bytes(b"x" * (90 << 20))
    (folder / "manycols").write_bytes(b",".join(b"c%d" % i for i in range(200_000)) + b"\n" + b",".join([b"1"] * 200_000) + b"\n")
    (folder / "quote").write_bytes(b'arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,"3\n' + b"1,2,3\n" * 200_000)
    (folder / "hugeint").write_bytes(b'{"StartTimeOffset": ' + b"9" * 5000 + b', "ContextTokens": 1, "GeneratedTokens": 1}\n')
    (folder / "surrogate").write_bytes(b'{"StartTimeOffset": "\\ud83d", "ContextTokens": 1, "GeneratedTokens": 1}\n')
    (folder / "escape").write_bytes(b'{"StartTimeOffset": "\\u001b[2J", "ContextTokens": 1, "GeneratedTokens": 1}\n')
    for name in ("a\nb", "\x1b[2J", "-x", "a b", "é", "%s", "\u202e", "h100:8", "x@1"):
        (folder / name).write_bytes(STANDING["t.jsonl"])
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(STANDING["t.jsonl"])
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")


READERS = ("$A trace describe {}", "$A trace convert {} -o made", f"$A simulate {EIGHT} --plan TP1 --trace {{}}",
    "$A fit {} --gpu h100:1", f"$A fit {EIGHT} --log {{}}", "$A validate {}",
           "$A trace tokenize {} --chars-per-token 4 -o made", "$A replay --compare {} --model llama-3.1-8b --plan TP1 --gpu h100:1",
           f"$A simulate mixtral-8x7b --gpu h200:2 --plan TEP2 {' '.join(MADE)} --expert-load {{}}", "$A device check {}",
    f"$A simulate llama-3.1-8b --plan TP1 {' '.join(MADE)} --gpu {{}}",
           "$A trace tokenize texts.json --tokenizer {} -o made", "$A apex --model {} --num-gpus-per-node 1 --num-requests 3",
    "$A trace synth --like {} -o made")  # fmt: skip
FILES = ("bomb", "bomb0", "gzgz", "gzcut", "gzhead", "zip", "tar.gz", "deep", "deepobj", "twice", "utf16", "bom", "latin", "empty",
    "blank", "nul", "long", "manycols", "quote", "hugeint", "surrogate",
         "escape", "$'a\\nb'", "$'\\e[2J'", "./-x", "'a b'", "é", "%s", "$'\\u202e'", "h100:8", "x@1", "$'\\xff\\xfe'", "loop",
    "dangling", "/dev/zero", "/dev/null", ".", "npu", "/proc/self/mem",
         "/dev/tty", "/etc/shadow/x")  # fmt: skip


def files() -> Iterator[Row]:
    """Odd files where each reader expects another kind."""
    for line in READERS:
        for name in FILES:
            yield Row(f"files {line.split()[1]}", line.format(name), _bombs)


# ---- servers -------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'
ANSWERS: dict[str, bytes] = {
    "nothing": b"", "garbage": b"\x00\xff" * 500, "no http": b"hello\n", "half head": b"HTTP/1.1 200",
    "huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "many heads": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "401 echo": b"HTTP/1.1 401 No\r\nContent-Length: 30\r\n\r\nBearer sk-topsecret is no good", "500 html": b"HTTP/1.1 500 E\r\n\r\n"
    + b"<html>" * 10_000, "302": b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "307": b"HTTP/1.1 307 F\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
    "escape": b"HTTP/1.1 400 B\r\nContent-Length: 12\r\n\r\n\x1b[2J\x1b]0;x\x07\r\n\x9b", "not json": OK + b"data: {nope\n\n",
    "list": OK + b"data: [1,2]\n\n", "null": OK + b"data: null\n\n",
    "number": OK + b"data: 5\n\n", "choices 5": OK + b'data: {"choices": 5}\n\n', "choices null": OK + b'data: {"choices": null}\n\n',
    "choices [5]": OK + b'data: {"choices": [5]}\n\n',
    "text 5": OK + b'data: {"choices": [{"text": 5}]}\n\n', "delta 5": OK + b'data: {"choices": [{"delta": 5}]}\n\n',
    "usage x": OK + EVENT + b'data: {"choices": [], "usage": "x"}\n\n',
    "usage huge": OK + EVENT
    + b'data: {"choices": [], "usage": {"prompt_tokens": ' + b"9" * 400 + b', "completion_tokens": -5}}\n\ndata: [DONE]\n\n',
    "usage nan": OK + EVENT + b'data: {"choices": [], "usage": {"prompt_tokens": NaN, "completion_tokens": 1e999}}\n\ndata: [DONE]\n\n',
    "error 5": OK + b'data: {"error": 5}\n\n',
    "error escape": OK + b'data: {"error": {"message": "\\u001b[2J sk-topsecret \\ud83d"}}\n\n',
    "surrogate": OK + b'data: {"choices":[{"text":"\\ud83d","finish_reason":"length"}]}\n\ndata: [DONE]\n\n',
    "bad utf8": OK + b'data: {"choices":[{"text":"\xff\xfe","finish_reason":"length"}]}\n\ndata: [DONE]\n\n',
    "deep": OK + b"data: " + b"[" * 100_000 + b"\n\n", "long line": OK + b"data: " + b"x" * (8 << 20) + b"\n\n",
    "digits": OK + b"data: " + b"9" * 6000 + b"\n\n",
    "chunked bad": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "chunked huge": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\nhello",
    "length lies": b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + EVENT,
    "length negative": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + EVENT,
    "gzip bad": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    + EVENT, "gzip bomb": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(100 << 20)),
    "unknown code": b"HTTP/1.1 999 X\r\n\r\n", "code 0": b"HTTP/1.1 000 X\r\n\r\n", "101": b"HTTP/1.1 101 S\r\n\r\n",
    "100 forever": b"HTTP/1.1 100 C\r\n\r\n" * 5000,
    "finish 5": OK + b'data: {"choices":[{"text":"a","finish_reason":5}]}\n\ndata: [DONE]\n\n',
    "index": OK + b'data: {"choices":[{"text":"a","index":99}]}\n\ndata: [DONE]\n\n',
    "done first": OK + b"data: [DONE]\n\n", "empty events": OK + b"data:\n\n" * 1000 + b"data: [DONE]\n\n",
    "comments": OK + b": x\n\n" * 1000, "fine": OK + EVENT * 20 + b"data: [DONE]\n\n", "bom": OK + b"\xef\xbb\xbf" + EVENT,
    "204": b"HTTP/1.1 204 N\r\n\r\n",
    "json whole": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"choices":[{"text":"abc"}]}',
    "cookie": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=" + b"b" * 9999 + b"\r\n\r\n" + EVENT,
}  # fmt: skip
URLS = ("http://127.0.0.1:1", "http://[::1]:1", "http://127.0.0.1:0", "http://127.0.0.1:99999", "http://127.0.0.1:-1",
    "http://127.0.0.1:²", "http://127.0.0.1:", "http://", "http:///x", "https://127.0.0.1:1",
        "ftp://127.0.0.1", "file:///etc/passwd", "127.0.0.1:1", "localhost", "http://user:hunter2@127.0.0.1:1",
    "http://user:hunter2@127.0.0.1:1/?key=hunter2", "http://:hunter2@127.0.0.1:1", "http://hunter2@127.0.0.1:1",
        "http://user:hun%74er2@127.0.0.1:1", "http://xn--a", "http://[::1", "http://a b", "http://127.0.0.1:1/\x1b[2J",
    "http://127.0.0.1:1/" + "x" * 5000, "http://0x7f.1:1", "javascript:alert(1)", "//127.0.0.1:1",
        "http://127.0.0.1:1#hunter2", "http://127.0.0.1:1/v1/../../x", "HTTP://127.0.0.1:1",
    "http://127.0.0.1:1/v1/completions?api-key=hunter2")  # fmt: skip


def servers(ports: dict[str, int]) -> Iterator[Row]:
    """Replay against servers that answer anything, and addresses of all kinds."""
    for name, port in ports.items():
        for more in ("", "--api chat --json kept.json"):
            yield Row(
                f"server {name}",
                f"$A replay t3.jsonl --url http://127.0.0.1:{port} --model m --timeout 3 {more}",
                _three,
                env={"OPENAI_API_KEY": "sk-topsecret"},
                codes=(0, 2),
            )
    for url in URLS:
        yield Row(
            "url",
            f"$A replay t3.jsonl --model m --timeout 3 --json kept.json --url '{url}'",
            _three,
            env={"OPENAI_API_KEY": "" if "@" in url else "sk-topsecret"},
            codes=(2,),
        )
    for key in ("é", "a\nb", "\x1b[2J", " ", "x" * 20_000, "a b"):
        yield Row(
            "key", "$A replay t3.jsonl --model m --timeout 3 --url http://127.0.0.1:1", _three, env={"OPENAI_API_KEY": key}, codes=(2,)
        )
    for body in (
        "{",
        "[]",
        "5",
        "null",
        '{"stream": false}',
        '{"a": ' + "[" * 5000,
        '{"temperature": NaN}',
        '{"max_tokens": "x"}',
        '{"prompt": null}',
        '{"\\ud83d": 1}',
        "",
        " ",
    ):
        yield Row(
            "body",
            f"$A replay t3.jsonl --model m --timeout 3 --url http://127.0.0.1:{ports['fine']} --extra-body '{body}'",
            _three,
            codes=(0, 2),
        )


def _three(folder: Path) -> None:
    rows = ({"StartTimeOffset": i * 10**7, "ContextTokens": 20, "GeneratedTokens": 6} for i in range(3))
    (folder / "t3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def serve(answer: bytes) -> int:
    """A server that says one thing to everybody; its port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            line, _ = listening.accept()
            threading.Thread(target=speak, args=(line,), daemon=True).start()

    def speak(line: socket.socket) -> None:
        try:
            line.settimeout(5)
            line.recv(1 << 16)
            line.sendall(answer)
            time.sleep(0.2)
        except OSError:
            pass
        finally:
            line.close()

    threading.Thread(target=accept, daemon=True).start()
    return int(listening.getsockname()[1])


# ---- all -----------------------------------------------------------------------------------------------------------


def leaked(row: Row, found: Ran, folder: Path) -> str:
    """Whether a secret is anywhere it should not be."""
    kept = folder / "kept.json"
    text = found.out + found.err + (kept.read_text(errors="replace") if kept.is_file() else "")
    return next((f"the secret {word} is told" for word in ("sk-topsecret", "hunter2") if word in text), "")


def one(row: Row) -> tuple[Row, str, Ran]:
    """Run and judge a row."""
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    env = {name: value.replace("$F", str(folder)) for name, value in row.env.items()}
    row = Row(row.group, row.line, row.prepare, env, row.kept, row.codes, row.stop, row.loud)
    try:
        found = done(row, folder)
        return row, judged(row, found) or leaked(row, found, folder), found
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Attack, and tell; 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginning of a group's name")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="only each N-th row")
    asked = parser.parse_args()
    ports = {name: serve(answer) for name, answer in ANSWERS.items()}
    rows = [*overwriting(), *unwritable(), *streams(), *signals(), *caches(), *environments(), *files(), *servers(ports)]
    rows = [row for row in rows if row.group.startswith(asked.only)][:: asked.every]
    bad: Counter[str] = Counter()
    came: Counter[str] = Counter()
    with ThreadPoolExecutor(asked.jobs) as pool:
        for row, fault, found in pool.map(one, rows):
            came[f"{row.group.split()[0]} exit {found.code}"] += 1
            if fault:
                bad[f"{row.group.split()[0]}: {fault[:80]}"] += 1
                shown = {k: v[:60] for k, v in row.env.items()}
                print(f"{row.group}: {fault}\n    {row.line[:200]!r} {shown or ''} {row.stop or ''}")
                print(f"    exit {found.code} {found.seconds:.1f} s: {found.err[-400:]!r}", flush=True)
    print("\n".join(f"{n:5} {what}" for what, n in sorted(came.items())))
    print(f"{len(rows)} rows, {sum(bad.values())} faults of {len(bad)} kinds" + "".join(f"\n{n:5} {what}" for what, n in bad.most_common()))
    return 1 if bad else 0


if __name__ == "__main__":
    print(json.dumps({"cpu": os.cpu_count()}), file=sys.stderr)
    sys.exit(main())
