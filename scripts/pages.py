"""Outputs and the picture in the documents, made again from what the commands print: python scripts/pages.py [--check]

A block that shows an output stands below its command, after a remark that says what of the output is shown:

    ```sh
    apexsim plan …
    ```

    <!-- shows: answer, ranked:12 -->
    ```text
    …
    ```

Parts are named by the first word of a section of the report; `name:N` is its first N lines, `answer` the sentences under
the title, `all` everything, `/pattern/` every line that matches.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.text import Text

from apexsim.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/tutorial.md", "docs/calibrate.md")
PICTURE = ROOT / "docs/images/answer.svg"
PICTURED = "apexsim plan llama-3.1-70b-instruct --gpu h100:8 --trace example:azure \\\n    --slo ttft:p95=500ms --slo tpot:p95=30ms"
PICTURED_PARTS = "apexsim, ranked, launch"
COLUMNS = 100
ANSWERED = (0, 3, 4)  # exit codes
BLOCK = re.compile(r"(```sh\n(apexsim .*?)\n```\n\n<!-- shows: (.*?) -->\n```text\n)(.*?)(```\n)", re.S)
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 aria-label="A question to apexsim and its answer, in a terminal">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: ui-sans-serif, Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Screen(io.StringIO):
    """Standard output as a terminal that shows colours."""

    def isatty(self) -> bool:
        return True


@cache
def output(command: str, color: bool = False) -> str:
    """What a command prints on a page of COLUMNS columns."""
    words = shlex.split(command.replace("\\\n", " "))[1:]
    kept = {name: os.environ.pop(name, None) for name in ("NO_COLOR", "COLUMNS", "TERM")}
    os.environ["COLUMNS"] = str(COLUMNS)
    out = Screen() if color else io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            code = main(words)
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({name: value for name, value in kept.items() if value is not None})
    assert code in ANSWERED, f"{command} ends with {code}"
    return out.getvalue().rstrip("\n")


def bare(text: str) -> str:
    """Without the codes of colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def shown(text: str, parts: str) -> str:
    """The parts of an output that a page shows, with a mark where something is left out."""
    lines = text.split("\n")
    chosen: set[int] = set()
    for part in map(str.strip, parts.split(", ")):
        chosen |= set(_lines_of(lines, part))
    assert chosen, f"nothing in the output is called {parts}"
    found: list[str] = []
    last = -1
    for i in sorted(chosen):
        if any(bare(lines[j]).strip() for j in range(last + 1, i)) and (found or "answer" not in parts):
            found += ["  …"] if found and not parts.startswith("/") else []
        elif found and i > last + 1:
            found.append("")
        found.append(lines[i])
        last = i
    return "\n".join(line.rstrip() for line in found) + "\n"


def _lines_of(lines: list[str], part: str) -> list[int]:
    if part == "all":
        return list(range(len(lines)))
    if part.startswith("/"):
        return [i for i, line in enumerate(lines) if re.search(part.strip("/"), bare(line))]
    if part == "answer":
        return _lines_of(lines, "apexsim")[1:]
    name, _, count = part.partition(":")
    start = next(i for i, line in enumerate(lines) if bare(line).split(" ")[0] == name and (i == 0 or not lines[i - 1].strip()))
    end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
    return list(range(start, end))[: int(count) if count else None]


def written(text: str) -> str:
    """A page with every output made again."""
    return BLOCK.sub(lambda found: found[1] + shown(output(found[2]), found[3]) + found[5], text)


def picture() -> str:
    """The answer to one question as it stands in a terminal."""
    console = Console(record=True, width=COLUMNS + 4, file=io.StringIO(), color_system="truecolor", legacy_windows=False)
    console.print(Text.from_ansi(f"\x1b[1m$ {PICTURED}\x1b[0m\n" + shown(output(PICTURED, color=True), PICTURED_PARTS)))
    svg = console.export_svg(title="apexsim plan", unique_id="answer", code_format=FRAME)
    return "\n".join(line.rstrip() for line in svg.split("\n"))


def made() -> dict[Path, str]:
    """Every file that this writes, and what belongs in it."""
    pages = {ROOT / page: written((ROOT / page).read_text(encoding="utf-8")) for page in PAGES if (ROOT / page).exists()}
    return {**pages, PICTURE: picture()}


def run(check: bool) -> int:
    """Write what has changed, or only name it; the exit code."""
    stale = {path: text for path, text in made().items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        print(f"{'old' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(run("--check" in sys.argv[1:]))
