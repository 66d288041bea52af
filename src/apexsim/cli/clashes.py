"""Options that would do nothing beside others, by command: refused, never ignored (floor 7)."""

from __future__ import annotations

from collections.abc import Callable

from apexsim.cli.rows import COMMANDS
from apexsim.workload.clashes import (
    NO_GAPS,
    NO_TRACE,
    NO_WIDTHS,
    OWN_ARRIVALS,
    OWN_LENGTHS,
    PRESET,
    QUESTION,
    Clash,
    Given,
    beside,
    both,
    no_rate,
    without,
)


def _all_to_stdout(given: Given) -> bool:
    data = any(given.get(name) == "-" for name in ("json", "csv", "bench_json", "benchmark_report"))
    return data and ("output" not in given or "emit" in given)


NO_REPORT = "no report is written where standard output holds data"
REPORT = tuple(Clash(name, _all_to_stdout, NO_REPORT, "add --output FILE") for name in ("top", "all"))


def _replay(*groups: str, apart: tuple[str, ...]) -> tuple[str, ...]:
    """Options of `replay` by what they are for."""
    return tuple(opt.name for group in groups for opt in COMMANDS["replay"][group] if opt.name not in apart)


SENT = _replay("Server", "Load", apart=("model", "warmup"))  # these two serve the comparison too
PREDICTED = _replay("Prediction", "Engine", "Precision", apart=("plan", "compare"))
PROFILE = (Clash("budget", beside("dry_run"), "a dry run measures nothing", "drop one of both"),)
FORMAT = (Clash("format", beside("map"), "the columns are named", "drop one of both"),)

FORCE = Clash("force", without("emit"), "no files are written", "add --emit run.sh -o DIR")


def _asked(command: str, *apart: str) -> tuple[Clash, ...]:
    """Clashes of a question among the options that a command has, but for some that it sees otherwise."""
    known = {opt.name for group in COMMANDS[command].values() for opt in group}
    return tuple(clash for clash in QUESTION if clash.option in known and clash.option not in apart)


def _policies_but(*names: str) -> Callable[[Given], bool]:
    """Whether policies are named, and none of these."""
    return lambda given: "policy" in given and not {*names, "all"} & {word.strip() for word in str(given["policy"]).split(",")}


CLASHES: dict[str, tuple[Clash, ...]] = {
    "plan": (
        *QUESTION,
        *REPORT,
        FORCE,
        Clash("headroom", beside("stages"), "the stages have loads of their own", "give one --request-rate"),
    ),
    "simulate": (*QUESTION, *NO_WIDTHS, FORCE),
    "size": (
        *_asked("size", "burstiness", "seed", "rate_factor"),
        *(clash for clash in REPORT if clash.option == "top"),
        FORCE,
        Clash("share", without("goodput", "slo"), "no request has a limit of its own", "add --goodput ttft:500"),
        Clash("burstiness", beside("trace"), OWN_ARRIVALS, "see: apexsim trace synth --like"),
        Clash("warmup", beside("concurrency"), "the first request of each user is left out", "drop it"),
    ),
    "fleet": (
        *_asked("fleet"),
        Clash("hold", _policies_but("reactive", "predictive"), "the policies keep no replica longer", "add reactive to --policy"),
        Clash("start_up_time", _policies_but("reactive", "predictive", "scheduled"), "the policies wait for no replica",
              "add reactive to --policy"),
        Clash("share", without("goodput", "slo"), "no request has a limit of its own", "add --goodput ttft:500"),
    ),
    "fit": (
        *NO_WIDTHS,
        *(Clash(name, beside("trace"), OWN_LENGTHS, "drop one of both") for name in ("prompt_len", "output_len", "workload")),
        *(Clash(name, beside("workload"), PRESET, "drop one of both") for name in ("prompt_len", "output_len")),
        Clash("map", without("trace"), NO_TRACE, "add --trace FILE"),
    ),
    "replay": (
        *(Clash(name, beside("compare"), "nothing is sent beside --compare", "drop it") for name in SENT),
        *(Clash(name, without("plan"), "nothing is predicted", "add --plan PLAN") for name in PREDICTED),
        *(Clash(name, beside("workload"), NO_TRACE, "drop it") for name in ("time_unit", "map")),
        Clash("burstiness", without("workload"), OWN_ARRIVALS, "see: apexsim trace synth --like"),
        Clash("burstiness", no_rate, NO_GAPS, "add --request-rate R"),
    ),
    "calibrate": (
        *(Clash(name, beside("suggest"), "nothing is read beside --suggest", "drop it")
          for name in ("model", "where", "length_spread", "save", "force")),
        Clash("force", without("save"), "nothing is kept", "add --save NAME"),
    ),
    **{f"trace {verb}": FORMAT for verb in ("describe", "convert", "scale")},
    "trace filter": (*FORMAT, Clash("seed", without("share"), "nothing is drawn", "add --share X")),
    "trace synth": (
        *(Clash(name, beside("workload"), PRESET, "drop one of both")
          for name in ("like", "prompt_len", "output_len", "prompt_cv", "output_cv", "lengths")),
        *(Clash(name, beside("like"), "lengths are given and drawn from a trace", "drop one of both")
          for name in ("prompt_len", "output_len", "prompt_cv", "output_cv", "lengths")),
        Clash("lengths", without("prompt_cv", "output_cv"), "all lengths are the same", "add --prompt-cv or --output-cv"),
        Clash("burstiness", both(without("like"), no_rate), NO_GAPS, "add --request-rate R"),
        Clash("seed", both(without("like", "workload", "prompt_cv", "output_cv", "shared_prefix"), no_rate), "nothing is drawn", "drop it"),
        Clash("turn_gap", without("turns"), "there is one turn", "add --turns N"),
    ),
    "trace tokenize": (
        Clash("burstiness", no_rate, NO_GAPS, "add --request-rate R"),
        Clash("seed", no_rate, "nothing is drawn", "add --request-rate R"),
        Clash("turn_gap", lambda given: given.get("turns") != "all", "only first turns are taken", "add --turns all"),
        Clash("download", without("tokenizer"), "no tokenizer is named", "add --tokenizer NAME"),
        Clash("output_field", beside("output_len"), "the answers' own lengths are replaced", "drop one of both"),
    ),
    **{f"profile {what}": PROFILE for what in ("gemm", "attention", "moe", "comm", "all")},
}  # fmt: skip
