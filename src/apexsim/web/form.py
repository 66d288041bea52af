"""The page with its form, made of the table of options: an option that is added appears under its panel (floor 7)."""

from __future__ import annotations

from functools import cache
from html import escape

from apexsim.cli.rows import Opt
from apexsim.engines import engine_names
from apexsim.hardware import gpu_names
from apexsim.model.names import catalogue, hub_id
from apexsim.report.html import HOLE, web
from apexsim.views import spoken
from apexsim.web.asked import VERBS, key, panels
from apexsim.web.limits import Limits
from apexsim.workload.presets import presets

FIRST = (  # what nearly every question says, in this order; all else stands behind, by panel
    ("Model and GPUs", ("gpu", "gpus", "nodes", "plan", "find")),
    ("Requests", ("workload", "prompt_len", "output_len", "request_rate", "concurrency", "num_requests")),
    ("What counts", ("ttft", "tpot", "slos", "objective", "engine")),
)
NAMES = {
    "gpu": "GPU", "gpus": "GPUs per node", "nodes": "nodes", "workload": "lengths of a use", "prompt_len": "prompt tokens",
    "output_len": "output tokens", "request_rate": "requests per second", "concurrency": "users at once", "num_requests": "requests",
    "ttft": "TTFT, p95 [ms]", "tpot": "TPOT, p95 [ms]", "slos": "further limits", "objective": "rank by", "engine": "engine",
    "find": "what is sought", "plan": "plan",
}  # fmt: skip
HELP = {  # of the first fields, where the command line's own speaks of files
    "gpu": "A name of the catalogue, with the number or without; several with commas.", "gpus": "Where the GPU's name does not say it.",
    "nodes": "1 where nothing is said.", "workload": "Lengths of prompts and outputs of a known use.",
    "prompt_len": "Of every request; 32k is 32,768.", "output_len": "Of every request.",
    "request_rate": "They come at random times at this rate; or there are users.",
    "concurrency": "Each sends the next request when the last is answered.", "num_requests": "How many are simulated.",
    "ttft": "95 of 100 requests get their first token in time.", "tpot": "95 of 100 get their further tokens at this pace.",
    "slos": "With blanks between them.", "engine": "With a version where it matters: vllm@0.19.0.",
}  # fmt: skip
PLACEHOLDERS = {"gpu": "h100:8", "ttft": "500", "tpot": "50", "slos": "e2e:p99=20s", "prompt_len": "1000", "output_len": "250",
                "request_rate": "4", "plan": "TP8", "find": "rate", "concurrency": "64",
                "gpus": "8", "nodes": "1", "num_requests": "1024"}  # fmt: skip
MODEL = (
    '<div class="field wide"><label for="f-model">model</label>'
    '<input type="text" id="f-model" name="model" list="l-model" placeholder="llama-3.1-70b-instruct" autocomplete="off" '
    'spellcheck="false" aria-describedby="h-model e-model">'
    '<small id="h-model">A name of the catalogue (type to search), several with commas; or the text of a config.json.</small>'
    '<p class="wrong" id="e-model" hidden></p></div>'
)
TITLES = {"plan": "Rank all plans", "simulate": "One plan in full", "size": "How much, how many?", "fleet": "Over time"}
TRACES = ("azure", "creation", "lmsys", "mooncake", "summarization")  # examples that need no tokenizer


@cache
def page(limits: Limits, asks: bool) -> str:
    """The page.  asks: whether a question in its address is asked at once, or only when a person says so."""
    values = {
        "verbs": "".join(_verb(verb) for verb in VERBS), "first": _first(), "more": _more(), "lists": _lists(), "traces": _traces(),
        "asks": "yes" if asks else "no", "upload": str(limits.upload), "seconds": f"{limits.seconds:g}",
    }  # fmt: skip
    return HOLE.sub(lambda hole: values[hole[1]], web("form.html"))


def _verb(verb: str) -> str:
    chosen = " checked" if verb == VERBS[0] else ""
    return f'<label><input type="radio" name="verb" value="{verb}"{chosen}> {escape(TITLES[verb])}</label>'


def _all() -> dict[str, tuple[Opt, str, list[str]]]:
    """Key -> the option, its panel, and the verbs that have it."""
    found: dict[str, tuple[Opt, str, list[str]]] = {}
    for verb in VERBS:
        for panel, opts in panels(verb):
            for opt in opts:
                found.setdefault(key(opt), (opt, panel, []))[2].append(verb)
    return {name: row for name, row in found.items() if name != "trace"}


def _first() -> str:
    known = _all()
    groups = ((title, [name for name in chosen if name in known]) for title, chosen in FIRST)
    made = [(title, "".join(_field(name, *known[name][::2]) for name in chosen)) for title, chosen in groups]
    return "".join(_group(title, MODEL * (i == 0) + fields) for i, (title, fields) in enumerate(made))


def _more() -> str:
    said = {name for _, chosen in FIRST for name in chosen}
    left: dict[str, list[str]] = {}
    for name, (opt, panel, verbs) in _all().items():
        if name not in said:
            left.setdefault(panel, []).append(_field(name, opt, verbs))
    return "".join(_group(panel, "".join(fields)) for panel, fields in left.items())


def _group(title: str, fields: str) -> str:
    return f'<fieldset><legend>{escape(title)}</legend><div class="fields">{fields}</div></fieldset>'


def _field(name: str, opt: Opt, verbs: list[str]) -> str:
    """A field with its label, what may be said in it, and a place for what is wrong with it."""
    label, told = escape(NAMES.get(name, name.replace("_", " "))), escape(HELP.get(name) or spoken(opt.help))
    about = f'id="f-{name}" name="{name}" aria-describedby="h-{name} e-{name}"'
    if opt.type is bool:
        inside = f'<label class="switch"><input type="checkbox" {about}> {label}</label>'
    else:
        inside = f'<label for="f-{name}">{label}</label>{_input(name, opt, about)}'
    end = f'<small id="h-{name}">{told}</small><p class="wrong" id="e-{name}" hidden></p>'
    return f'<div class="field" data-verbs="{" ".join(verbs)}">{inside}{end}</div>'


def _input(name: str, opt: Opt, about: str) -> str:
    if name == "workload":
        choices = "".join(f'<option value="{escape(each)}">{escape(each)}</option>' for each in presets())
        return f'<select {about}><option value="">none: as given here</option>{choices}</select>'
    hint = PLACEHOLDERS.get(name) or (str(opt.default) if isinstance(opt.default, (str, int, float)) else opt.metavar)
    kind = ' list="l-gpu"' if name == "gpu" else ' list="l-engine"' if name == "engine" else ""
    keys = ' inputmode="decimal"' if opt.type in (int, float) and not opt.axis else ""
    return f'<input type="text" {about} placeholder="{escape(hint)}" autocomplete="off" spellcheck="false"{kind}{keys}>'


def _lists() -> str:
    every = {"model": sorted(hub_id(entry.name) for entry in catalogue()), "gpu": gpu_names(), "engine": engine_names()}
    return "".join(
        f'<datalist id="l-{name}">{"".join(f"<option>{escape(one)}</option>" for one in known)}</datalist>' for name, known in every.items()
    )


def _traces() -> str:
    return "".join(f'<option value="example:{name}">{name}</option>' for name in TRACES)
