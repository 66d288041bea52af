"""Does any test see it when the code is wrong?  Each recorded mutant changes a line of a copy of src; its tests must fail.

    python scripts/mutants.py [WORD …] [--jobs N]    all, or those whose file or reason holds a word

tests/mutants.toml holds them.  A mutant whose text is not found exactly once is an error: the code has moved, so must the mutant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/apexsim"
RECORDED = ROOT / "tests/mutants.toml"
PATIENCE = 900  # s: a mutant that hangs the tests that long is killed, in both senses
FAILED = 1  # exit code of pytest where a test failed


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong line: file below src/apexsim, the text there, what stands in its place, tests that must see it, and what is wrong."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.file}: {self.why}"


def recorded(path: Path = RECORDED) -> list[Mutant]:
    """The mutants of a file."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(row["file"], row["old"], row["new"], tuple(row["tests"]), row["why"]) for row in rows]


def misplaced(mutants: Iterable[Mutant]) -> list[str]:
    """Mutants whose text does not stand in the package exactly once, or whose tests are no files."""
    found = []
    for mutant in mutants:
        file = inside(PACKAGE, mutant.file)
        times = file.read_text(encoding="utf-8").count(mutant.old) if file is not None and file.is_file() else 0
        if times != 1 or mutant.old == mutant.new:
            found.append(f"{mutant}: its text stands {times} times in the code")
        found += [f"{mutant}: no file {test}" for test in mutant.tests if not (ROOT / test.partition("::")[0]).is_file()]
    return found


def inside(package: Path, name: str) -> Path | None:
    """A file of a package by its name there; None where that leads out of it, also through a link."""
    file = (package / name).resolve()
    return file if file.is_relative_to(package.resolve()) else None


def copied(to: Path) -> Path:
    """A copy of the package below `to`, all of it, and no link: what is written there stays there, whenever it is killed."""
    return Path(shutil.copytree(PACKAGE, to / "apexsim", ignore=shutil.ignore_patterns("__pycache__")))


def put(mutant: Mutant, package: Path) -> None:
    """Write the wrong line into a copy of the package, and nowhere else."""
    file = inside(package, mutant.file)
    if file is None or package.resolve() == PACKAGE.resolve():
        raise ValueError(f"{mutant}: its file is not in the copy")
    file.write_text(file.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")


def outcome(mutant: Mutant) -> str:
    """ "killed", "survived", or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        put(mutant, copied(Path(folder)))
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        where = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        if mutant.file.startswith("engine/"):  # its machine code is of no use to anyone else
            where["NUMBA_CACHE_DIR"] = folder
        try:
            done = subprocess.run(words, cwd=ROOT, env=where, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return "killed"
        broken = f"no tests ran, pytest ended with {done.returncode}: {done.stdout[-300:]}"
        return {0: "survived", FAILED: "killed"}.get(done.returncode, broken)


def main(argv: list[str] | None = None) -> int:
    """0 when every mutant is killed."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs is 1 or more, not {args.jobs}")
    mutants = [m for m in recorded() if not args.words or any(word in str(m) for word in args.words)]
    wrong = misplaced(mutants)
    if wrong or not mutants:
        print("\n".join(wrong or ["no such mutant"]), file=sys.stderr)
        return 2
    start, kinds = time.monotonic(), []
    with ThreadPoolExecutor(args.jobs) as pool:
        running = {pool.submit(outcome, mutant): mutant for mutant in mutants}
        for done in as_completed(running):
            kinds.append(done.result())
            print(f"{kinds[-1]:9s} {running[done]}", flush=True)
    killed = kinds.count("killed")
    print(f"{killed} of {len(mutants)} mutants killed in {time.monotonic() - start:.0f} s")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
