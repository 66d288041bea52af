"""How long each of the twenty questions takes, warm, each in a process of its own (CPU seconds and wall seconds).

python bench/questions.py
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
GOAL, MOST = 3.0, 10.0  # s that fifteen of them, and all of them, should take on a quiet machine


def main() -> None:
    """One line for each question, and what the goals come to."""
    questions = tomllib.loads((ROOT / "examples/questions.toml").read_text(encoding="utf-8"))["question"]
    spent = []
    for question in questions:
        with tempfile.TemporaryDirectory() as folder:
            words = [word.replace("FOLDER", f"{folder}/out") for word in shlex.split(question["run"])]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, "-m", "apexsim", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"{spent[-1]:6.2f} s CPU  {time.monotonic() - start:6.2f} s wall  {question['asks']}", flush=True)
    print(f"{sum(s <= GOAL for s in spent)} of {len(spent)} within {GOAL:g} s of CPU, {sum(s <= MOST for s in spent)} within {MOST:g} s")


if __name__ == "__main__":
    main()
