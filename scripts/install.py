"""Install the package into the environment that runs this, with a line for each step: python scripts/install.py [EXTRA]

pip's own words are kept for the case that it fails.  Nothing but the standard library is needed.
"""

from __future__ import annotations

import compileall
import re
import subprocess
import sys
import time
from pathlib import Path

STEPS = (  # pip's line -> what is shown of it
    (re.compile(r"\s*Downloading (\S+?)-\d\S* \((.+)\)"), "downloading {} ({})"),
    (re.compile(r"\s*Using cached (\S+?)-\d\S* \((.+)\)"), "{} is in pip's cache ({})"),
    (re.compile(r"\s*(Installing build dependencies)"), "preparing to build apexsim"),
    (re.compile(r"Installing collected packages: (.+)"), "installing {}"),
)
SHOWN = 100  # columns
SOURCE = Path(__file__).resolve().parents[1] / "src"


def shown(line: str) -> str:
    """What a line of pip is worth saying; nothing for most."""
    if "metadata" in line:
        return ""
    for pattern, text in STEPS:
        if found := pattern.match(line):
            told = text.format(*found.groups())
            return told if len(told) <= SHOWN else told[: SHOWN - 2] + " …"
    return ""


def main(extra: str = "") -> int:
    """pip's exit code."""
    begun = time.monotonic()
    target = f".[{extra}]" if extra else "."
    words = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--editable", target]
    lines: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line)
            if told := shown(line):
                print(f"  {time.monotonic() - begun:3.0f} s  {told}", flush=True)
    if pip.returncode:
        print("".join(lines), file=sys.stderr)
    else:  # pip compiles what it copies; this is not copied, and where Python may not write it would be compiled at every command
        compileall.compile_dir(SOURCE, quiet=2)
        print(f"  {time.monotonic() - begun:3.0f} s  done", flush=True)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
