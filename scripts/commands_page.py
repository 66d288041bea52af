"""Write docs/commands.md from the table of options: python scripts/commands_page.py > docs/commands.md"""

from __future__ import annotations

import sys

from apexsim.cli.commands import HELP
from apexsim.cli.rows import COMMANDS, REQUIRED, Opt

HEAD = """# Commands

Written by `scripts/commands_page.py` from the options in `src/apexsim/cli/rows.py`; a test keeps them equal.

Exit codes: 0 done; 2 the request cannot be read or used; 3 it is sound, but nothing on this cluster can serve it; 4 `plan` or
`simulate` answered, but no plan keeps the limits (`--slo` on the run, `--ttft`, `--tpot`, `--power-cap`); 130 interrupted. A plan that
does not keep up with the load is no failure, and `apexsim apex` knows no limits.
Every failure is one line on standard error, and JSON on standard output where that was asked for ([json.md](json.md)).
An option that would do nothing beside the others is refused. Settings have the names that they have in each engine, names of other
tools are understood ([names.md](names.md)), and `--max_num_seqs` is read as `--max-num-seqs`. `apexsim help COMMAND` is `apexsim COMMAND
--help`. Colours follow `NO_COLOR`; the width is the terminal's, or `COLUMNS`.
"""
ARGUMENTS = {
    "plan": "MODEL",
    "simulate": "MODEL",
    "size": "MODEL",
    "fleet": "MODEL",
    "fit": "MODEL",
    "compare": "BEFORE AFTER",
    "apex": "[OPTIONS]",
    "models": "[FILTER]",
    "gpus": "[FILTER]",
    "engines": "[FILTER]",
    "workloads": "[FILTER]",
    "schema": "[NAME]",
    "validate": "FILE...",
    "calibrate": "[RESULT]...",
    "fit-host": "FILE",
    "fit-power": "FILE",
    "replay": "[TRACE]",
    "web": "[OPTIONS]",
    "trace describe": "FILE",
    "trace convert": "FILE",
    "trace synth": "[OPTIONS]",
    "trace filter": "FILE",
    "trace scale": "FILE",
    "trace tokenize": "DATASET",
    "device check": "FOLDER",
    "device add": "FOLDER",
    **{f"profile {what}": "--out DIR" for what in ("gemm", "attention", "moe", "comm", "all")},
}


def default(opt: Opt) -> str:
    """The default as a cell of a table."""
    if opt.default is REQUIRED:
        return "required"
    return f"`{opt.default}`" if isinstance(opt.default, (int, float, str)) and opt.default is not False else ""


def section(command: str) -> str:
    """One command: its help, then its options by panel."""
    about, _, examples = HELP[command].partition("Examples:")
    lines = [f"## apexsim {command} {ARGUMENTS[command]}", "", about.strip(), "", "```sh"]
    lines += [line.strip() for line in examples.splitlines() if line.strip()] + ["```", ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    for panel, group in COMMANDS[command].items():
        lines.append(f"| **{panel}** | | |")
        for opt in group:
            spelling = ", ".join(opt.flags or (opt.flag,)) + (f" {opt.metavar}" if opt.metavar else "")
            lines.append(f"| `{spelling}` | {default(opt)} | {opt.help.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join("\n" + section(command) for command in COMMANDS)


if __name__ == "__main__":
    sys.stdout.write(page())
