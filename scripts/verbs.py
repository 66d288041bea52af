"""Write src/apexsim/verbs.py: the verbs of Python with explicit signatures and docstrings, from the table of options.

python scripts/verbs.py > src/apexsim/verbs.py
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from textwrap import wrap

from apexsim import api
from apexsim.api import FURTHER, POOLS, SEARCHED
from apexsim.calibrate.run import calibrate
from apexsim.calls import SETTINGS
from apexsim.cli.rows import COMMANDS, REQUIRED, UNFOLLOWED, UNSIZED, Opt
from apexsim.search.follow import fleet
from apexsim.search.inverse import size
from apexsim.views import spoken

HEAD = '''"""The verbs of Python, with the keywords of the command line (floor 7).  Made by scripts/verbs.py from the table of options."""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it: importing the package loads nothing that takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from apexsim.calibrate.run import Calibration
    from apexsim.plan.sized import Fit
    from apexsim.search.fleet import Fleet
    from apexsim.search.size import Size
    from apexsim.search.study import Study
    from apexsim.search.sweep import Sweep
    from apexsim.search.together import SharedFleet
    from apexsim.workload.trace import Workload

    Progress = Callable[[int, int, str], None]


def _calls() -> Any:
    from apexsim import calls

    return calls
'''
TYPES = {"str": "str", "int": "int", "float": "float", "bool": "bool"}
OWN = {
    "model": "Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.",
    "gpu": "GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.",
    "trace": "Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows "
             "of (time, prompt, output).",
    "slos": "Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.",
    "columns": "Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.",
    "settings": "Engine settings by their names in the engine's file: {'watermark': 0.02}.",
    "progress": "Called with (done, of how many, what).",
    "steps": "Keep every batch of the run, for study.steps(), not an even sample of 2,048.",
    "workers": "Threads, or tasks of Ray, at once; 0 takes the cores there are.",
    "plan": "As a study shows it: TP8, 2×TP4 (or 2xTP4), DP2TP4/TP8, DEP8 …; or by its widths.",
}  # fmt: skip
ANNOTATED = {"steps": "bool", "gpu": "str | Mapping[str, Any]",
             "trace": "str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None",
             "slos": "str | Sequence[str] | None", "settings": "Mapping[str, Any] | None", "progress": "Progress | None",
             "ttft": "float | str | None", "tpot": "float | str | None", "price": "str | float | None", "every": "str | float",
             "acceptance": "str | float | None",
             "start_up_time": "str | float | None"}  # fmt: skip
NOT_OF = {"simulate": SEARCHED, "size": (*UNSIZED, *POOLS), "fleet": (*UNFOLLOWED, *POOLS)}  # keywords that would do nothing
RETURNS = {"plan": "Study", "simulate": "Study", "sweep": "Sweep", "size": "Size", "fleet": "Fleet | SharedFleet", "fit": "Fit"}
ABOUT = {
    "plan": "Rank every parallel plan of a model on a cluster for a stream of requests.",
    "simulate": "Simulate one plan in full, beside the heuristic one.",
    "sweep": "The question of `plan` with lists of models, GPUs, counts, engines, settings or loads: every combination.",
    "size": "The question backwards: the most load, the fewest GPUs, the longest prompt, the tightest limit.",
    "fleet": "Replicas over the time of a trace: how many each interval needs, and what following the load costs and misses.",
    "fit": "Does it fit?  The memory of one GPU, KV tokens and users; nothing is simulated.",
}
MODELS = {"sweep": "model: str | Sequence[str]", "size": "model: str", "fleet": "model: str | Mapping[str, Mapping[str, Any]]"}
LISTED = ("gpu", "gpus", "nodes", "engine", "request_rate", "concurrency", "prompt_len", "output_len", "num_requests", "max_num_seqs",
          "max_num_batched_tokens", "gpu_memory_utilization", "block_size", "kv_dtype", "weight_dtype", "sampling", "route", "tp", "pp",
          "dp", "ep")  # fmt: skip


def options(command: str) -> dict[str, Opt]:
    """The options of a command by keyword."""
    names = {"slo": "slos", "map": "columns"}
    return {names.get(opt.name, opt.name): opt for group in COMMANDS[command].values() for opt in group}


def keywords(verb: str) -> dict[str, str]:
    """Keyword -> annotation and default, in the order of `api.ask`."""
    known, found = options("plan" if verb == "sweep" else verb), dict[str, str]()
    asked = [name for name in inspect.signature(api.ask).parameters if name != "model" and name not in NOT_OF.get(verb, ())]
    more = {"plan": [*FURTHER, "workers", "ray", "progress"], "sweep": ["headroom", "workers", "ray", "progress"],
            "size": [n for n in inspect.signature(size).parameters if n not in ("model", "question")],
            "fleet": [n for n in inspect.signature(fleet).parameters if n not in ("model", "question")], "fit": [],
            "simulate": ["steps"]}  # fmt: skip
    order = list(known) if verb == "fit" else [*asked, *SETTINGS, "ttft", "tpot", *more.get(verb, [])]
    for name in order:
        if verb == "fit" and name in ("json", "log"):
            continue
        opt = known.get(name)
        kind = ANNOTATED.get(name) or (opt.type.__name__ if opt and isinstance(opt.type, type) else "str")
        if verb in ("sweep", "size") and name in LISTED and not (verb == "size" and name not in ("gpu", "gpus")):
            kind = f"{kind.replace(' | None', '').replace('str | Mapping[str, Any]', 'str')} | Sequence[{'str' if name == 'gpu' else kind}]"
        kind += " | Sequence[str]" if (verb, name) == ("fleet", "gpu") else ""
        default = opt.default if opt and opt.default is not REQUIRED else None
        default = {"share": 0.95, "steps": False}.get(name, default) if name not in ("slos", "progress", "settings") else None
        required = name == "gpu" and verb != "size"
        if default is None and not required and "None" not in kind:
            kind += " | None"
        found[name] = f"{kind}" if required else f"{kind} = {default!r}"
    return found


def docstring(verb: str, names: list[str]) -> str:
    """What the verb does, and each keyword with the help of its option."""
    known, lines = options("plan" if verb == "sweep" else verb), [ABOUT[verb], ""]
    for name in ["model", *(["plan"] if verb == "simulate" else []), *names]:
        told = OWN.get(name) or (spoken(known[name].help) if name in known else "")
        told = re.sub(
            r"\(see: apexsim (\w+)\)", r"(see: apexsim.\1())", told.replace("see: apexsim engines", "apexsim engines on a command line")
        ).replace("\\\\", "\\\\\\\\")
        lines += wrap(f"{name}: {told}", 130, subsequent_indent="    ")
    lines += ["", "Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error."]
    return "\n".join(f"    {line}".rstrip() for line in lines).strip()


def function(verb: str) -> str:
    """The source of a verb."""
    given = keywords(verb)
    model = MODELS.get(verb, "model: str | Mapping[str, Any]")
    head = [model, *(["plan: str = ''"] if verb == "simulate" else []), "*", *(f"{name}: {kind}" for name, kind in given.items())]
    how = {"sweep": "several", "size": "several", "fleet": "several", "fit": "fitted"}.get(verb, "call")
    body = f"_calls().{how}({verb}, **locals())"
    said = docstring(verb, list(given))
    made = RETURNS[verb]
    return f'def {verb}({", ".join(head)}) -> {made}:\n    """{said}\n    """\n    answer: {made} = {body}\n    return answer\n'


def catalogue(what: str) -> str:
    """The source of a catalogue's verb."""
    return (f"def {what}(name: str = '') -> list[dict[str, Any]]:\n"
            f'    """The {what} that are known, or those whose name holds a text, as dicts."""\n'
            f"    rows: list[dict[str, Any]] = _calls().catalogue({what!r}, name)\n    return rows\n")  # fmt: skip


def calibration() -> str:
    """The source of `calibrate`."""
    parameters = [p for name, p in inspect.signature(calibrate).parameters.items() if name not in ("results", "question")]
    head = ", ".join(f"{p.name}: {p.annotation} = {p.default!r}" for p in parameters)
    packed = ", ".join(f"{p.name}={p.name}" for p in parameters) + ", **question"
    said = inspect.cleandoc(calibrate.__doc__ or "")
    said = " ".join(said.split())
    lines = "\n    ".join(wrap(said, 130))
    return (f"def calibrate(results: str | Sequence[str], *, {head}, **question: Any) -> Calibration:\n"
            f'    """{lines}\n    """\n'
            f"    answer: Calibration = _calls().calibrated(calibrate, results, {packed})\n    return answer\n")  # fmt: skip


def source() -> str:
    """The whole file, formatted."""
    parts = [HEAD, *(function(verb) for verb in ABOUT), *(catalogue(w) for w in ("models", "gpus", "workloads")), calibration()]
    made = "\n\n".join(parts)
    ran = subprocess.run([sys.executable, "-m", "ruff", "format", "--line-length", "140", "-"], input=made, text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


if __name__ == "__main__":
    sys.stdout.write(source())
