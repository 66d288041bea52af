"""The JSON Schema (2020-12) of everything that --json writes, and the page that explains it (floor 6).

Every key stands here once with its type and meaning.  Objects are closed: a key that is written and not described makes
a test fail, so that nothing undocumented gets out.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from apexsim.api import FURTHER, ask
from apexsim.calibrate.run import FORMAT as CALIBRATION_FORMAT
from apexsim.doubt import LEVELS
from apexsim.errors import InputError, nearest
from apexsim.replay.record import SHOWN
from apexsim.report import apexpage, calibratepage, devicepage, difference, fleetpage, ledger, replaypage, sizepage, sweep, tracepage
from apexsim.report import sharedpage as shared
from apexsim.search.study import FORMAT as STUDY_FORMAT
from apexsim.stats import Stats

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

# ---- the words of a schema ----------------------------------------------------------------------------------------------


def _plain(kind: str, told: str, null: bool = False) -> Schema:
    return {"type": [kind, "null"] if null else kind, "description": told}


def num(told: str, null: bool = False) -> Schema:
    """A number."""
    return _plain("number", told, null)


def count(told: str, null: bool = False) -> Schema:
    """A whole number."""
    return _plain("integer", told, null)


def text(told: str, null: bool = False) -> Schema:
    """A text."""
    return _plain("string", told, null)


def flag(told: str) -> Schema:
    """True or false."""
    return _plain("boolean", told)


def const(value: str) -> Schema:
    """The name and version of a layout."""
    return {"const": value, "description": "layout of this file and its version; grows when a key goes or changes its meaning"}


def many(item: Schema, told: str) -> Schema:
    """A list."""
    return {"type": "array", "items": item, "description": told}


def by_name(value: Schema, told: str) -> Schema:
    """An object whose keys are names."""
    return {"type": "object", "additionalProperties": value, "description": told}


def obj(told: str, keys: dict[str, Schema], optional: tuple[str, ...] = (), null: bool = False) -> Schema:
    """A closed object; keys that are not optional are always there."""
    return {
        "type": ["object", "null"] if null else "object",
        "description": told,
        "properties": keys,
        "required": [key for key in keys if key not in optional],
        "additionalProperties": False,
    }


def ref(name: str, told: str = "") -> Schema:
    """A record that stands in several places."""
    return {"$ref": f"#/$defs/{name}"} | ({"description": told} if told else {})


def either_null(schema: Schema, told: str) -> Schema:
    """A record, or null."""
    return {"anyOf": [schema, {"type": "null"}], "description": told}


# ---- shared records -----------------------------------------------------------------------------------------------------

_STATS = ("mean", "median", "std", "min", "max", "p75", "p90", "p95", "p99")
assert tuple(Stats.__dataclass_fields__) == _STATS
LAYOUT = obj("how a cell is split over the GPUs of a stage", {
    "dp": count("replicas of the cell"), "tp": count("tensor parallel width"), "ep": count("expert parallel width"),
})  # fmt: skip
SHARED: dict[str, Schema] = {
    "stats": obj("nine numbers of a distribution; null where there is none (unit: in the key above)",
                 {name: num("", True) for name in _STATS}),
    "layout": LAYOUT,
    "lengths": obj("token counts", {
        **{name: num("[tokens]", True) for name in _STATS}, "cv": num("standard deviation over mean"), "total": count("sum"),
        "histogram": many(obj("an octave", {"from": count("first length"), "below": count("first length beyond"),
                                            "requests": count("requests in it")}), "requests by length"),
    }),
    "scores": obj("errors of one metric over rows", {
        "n": count("rows"), "median_abs_error": num("median of |predicted / measured − 1|"), "p90_abs_error": num("its 90th percentile"),
        "mean_abs_error": num("its mean"), "bias": num("median of predicted / measured − 1"),
        "rank_correlation": num("Spearman's; null below three rows", True), "accuracy": num("share of right answers, of yes-or-no metrics"),
    }, optional=("rank_correlation", "accuracy")),
}  # fmt: skip
_ERROR = obj("why the command failed", {
    "code": count("exit code: 2 bad input, 3 infeasible, 130 interrupted"), "kind": text("bad input, infeasible or interrupted"),
    "message": text("what was expected and what came"), "where": text("option, file or key", True), "hint": text("what to try", True),
    "nearest": text("of code 3: what would be feasible", True),
}, optional=("nearest",))  # fmt: skip

# ---- a study ------------------------------------------------------------------------------------------------------------

_INPUTS: Schema = {
    "type": "object",
    "description": "the question as it was asked: keywords of the Python API; what is not here has its default",
    "properties": {name: {"description": f"--{name.replace('_', '-')}"} for name in (*signature(ask).parameters, "plan", *FURTHER)}
    | {"columns": {"description": "--map"}, "slos": {"description": "--slo"}, "settings": {"description": "of the engine, by our names"}},
    "additionalProperties": False,
}
_MODEL = obj("the model as it was understood", {
    "name": text("its name"), "family": text("architecture"), "total_parameters": num("all parameters"),
    "active_parameters": num("parameters that one token uses"), "layers": count("decoder layers"), "hidden": count("width"),
})  # fmt: skip
_WORKLOAD = obj("the requests", {
    "name": text("what they are called"), "mode": text("open (arrivals given), closed (users) or offline (all at once)"),
    "requests": count("how many"), "concurrency": count("users of a closed loop, else 0"), "warmup": count("left out of metrics"),
    "prompt_tokens_mean": num("mean prompt length"), "prompt_tokens_max": count("longest prompt"),
    "output_tokens_mean": num("mean output length"), "output_tokens_max": count("longest output"),
    "last_arrival_s": num("arrival of the last request [s]"),
    "ideal_hit": num("share of prompt tokens that an unlimited prefix cache would hold; null unknown", True),
})  # fmt: skip
_ENGINE = obj("the engine and its settings, all defaults decided", {
    "name": text("engine"), "version": text("version whose rules apply"),
    "asked_version": text("version that was asked for, where it lies between two with rules", True),
    "released": text("day of `version`", True), "max_model_len": count("longest prompt + output"),
    "max_num_seqs": count("sequences that run at once"), "max_num_batched_tokens": count("tokens of one step"),
    "gpu_memory_utilization": num("memory fraction, in this engine's meaning"), "block_size": count("tokens of a KV block"),
    "chunked_prefill": flag("prompts are cut into chunks"), "max_capture": count("largest batch with CUDA graphs; 0 eager"),
    "route": text("how replicas share requests"),
})  # fmt: skip
_PRICE = obj("what a GPU costs; null where no book has a price", {
    "usd_per_gpu_h": num("$ per GPU and hour; null where this book has none", True), "book": text("price book, or given"),
    "owners_cost": flag("it is what owning costs, not rent"), "date": text("day of the book", True),
    "books": by_name(num("$ per GPU and hour"), "prices in all books"),
}, null=True)  # fmt: skip
_LINK = {
    "name": text("link"), "bandwidth_bytes_s": num("per GPU and direction"),
    "stated": flag("the question states it (--nic, --pcie); else the GPU's file assumes it"),
}  # fmt: skip
_CLUSTER = obj("the GPUs", {
    "gpu": text("GPU"), "per_node": count("GPUs per node"), "nodes": count("nodes"),
    "scale_up": obj("between the GPUs of a node; null where that is the host's", _LINK, null=True),
    "host": obj("between GPU and host", _LINK), "network": obj("between nodes", _LINK),
    "notes": many(text("note"), "what the GPU's file says to know"),
})  # fmt: skip
_UNDERSTOOD = obj("the question as it was understood", {
    "model": _MODEL,
    "cluster": _CLUSTER,
    "workload": _WORKLOAD, "engine": _ENGINE, "price": _PRICE,
})  # fmt: skip
_DRAFTS_BY = obj("a range of batches", {
    "to": count("sequences up to which it holds; null: any more", True), "tokens": count("drafts of each"),
})  # fmt: skip
_PLAN = obj("the plan by its factors", {
    "replicas": count("model replicas"), "stages": count("pipeline stages"), "attention": ref("layout"), "ffn": ref("layout"),
    "devices": count("GPUs in all"), "clock_mhz": count("SM clock to lock; null the GPU's own", True),
    "draft": obj("how it drafts; null: not at all", {
        "method": text("mtp, eagle3, ngram or draft"), "tokens": count("drafts of a step"),
        "model": text("the model that drafts; null where none of its own does", True),
        "by_batch": many(_DRAFTS_BY, "drafts by sequences of the step, where they follow; `tokens` is the most; empty: always the same"),
    }, null=True),
    "precision": obj("number formats", {
        "weights": text("of weights"), "weights_by_part": by_name(text("format"), "of parts that differ"),
        "activation": text("of activations; auto: what the kernels take"), "kv": text("of the KV cache"),
    }),
})  # fmt: skip
_ROOM = obj("what fits into the tightest GPU", {
    "kv_bytes": num("KV cache"), "kv_bytes_range": many(num("byte"), "where independent start-up logs lay"),
    "blocks": count("KV blocks"), "block_size": count("tokens of a block"), "tokens": count("tokens of one replica's cache"),
    "max_concurrency": num("requests of max_model_len at once"), "max_model_len": count("longest prompt + output"),
    "stage": count("the tightest stage"), "ledger_bytes": by_name(num("byte"), "memory line by line"),
    "log": many(text("line"), "as the engine would log it"),
})  # fmt: skip
_ENERGY = obj("energy; null where the GPU's power is unknown", {
    "power_w_per_gpu": num("mean power of a GPU [W]", True), "gpu_kwh": num("energy of the GPUs [kWh]", True),
    "j_per_out_token": num("per output token [J]", True), "j_per_token": num("per prompt or output token [J]", True),
    "j_per_request": num("per request [J]", True), "servers_w_at_wall": num("mean power of all servers [W]", True),
    "servers_j_per_out_token": num("of servers, per output token [J]", True), "facility_w": num("mean power of the facility [W]", True),
    "facility_kwh": num("energy of the facility [kWh]", True),
})  # fmt: skip
_RATES = {"request_throughput_per_s": "requests per second", "output_throughput_tok_s": "output tokens per second",
          "total_throughput_tok_s": "prompt and output tokens per second"}  # fmt: skip
_METRICS = obj("what the run shows, warm-up left out", {
    "completed": count("requests"), "warmup_excluded": count("requests left out"), "duration_s": num("first sending to last token [s]"),
    "ttft_ms": ref("stats", "time to first token, from sending"), "tpot_ms": ref("stats", "time per further token, per request"),
    "itl_ms": ref("stats", "single gaps between tokens"), "e2el_ms": ref("stats", "sending to last token"),
    "queue_ms": ref("stats", "sending to first step"), "itl_exact": flag("gaps are counted one by one, not per request"),
    **{name: num(told) for name, told in _RATES.items()}, **{f"{name}_per_gpu": num(f"{told}, per GPU") for name, told in _RATES.items()},
    "prompt_tokens": count("sum"), "output_tokens": count("sum"), "mean_concurrency": num("requests in the system"),
    "preemptions": count("requests stopped for memory and recomputed"),
    "prefix_loaded": num("share of prompt tokens loaded from tiers behind the KV cache, part of prefix_hit; null: there are none", True),
    "prefix_hit": num("share of prompt tokens found in the prefix cache; null: no prompts share any", True),
    "stages": many(obj("a stage of the load", {
        "requests": count("requests"), "request_rate": num("[1/s]"), "duration_s": num("first sending to last token"),
        "output_throughput_tok_s": num("[token/s]"), "ttft_ms": ref("stats"), "e2el_ms": ref("stats"),
    }), "stages of a load that has some"),
    "classes": many(obj("a class of requests", {
        "class": text("its name"), "requests": count("requests, warm-up left out"), "ttft_ms": ref("stats"), "tpot_ms": ref("stats"),
        "e2el_ms": ref("stats"), "queue_ms": ref("stats"),
        "attainment": num("share of them that keep every limit of their own; null without such limits", True),
        "goodput_req_s": num("those per second of the run", True),
    }), "classes of requests, where there are some (--classes)"),
    "goodput_req_s": num("requests per second that meet every per-request limit; null without such limits", True),
    "attainment": num("share of requests that do", True),
    "slos": many(obj("a limit", {
        "slo": text("as typed"), "limit_ms": num("limit [ms]"), "kept": flag("it holds"),
        "attainment": num("share of requests that keep it, of a per-request limit"),
        "measured_ms": num("the statistic that it limits [ms]", True),
    }, optional=("attainment", "measured_ms")), "every limit"),
    "saturated": flag("requests come faster than they are served"), "saturated_why": text("how that shows"), "energy": _ENERGY,
    "usd_per_gpu_h": num("rent of a GPU [$/h]; null unknown", True),
    "usd_per_million_output_tokens": num("rent per million output tokens [$]", True),
}, optional=("classes",))  # fmt: skip
_ACCOUNT = obj("where the time went: seconds of all stages of all replicas", {
    "seconds": by_name(num("s"), "by operator class"), "busy_s": num("their sum"), "idle_s": num("the rest of the run"),
    "flop_per_gpu": num("FLOP done"), "bytes_per_gpu": num("bytes moved"), "mfu": num("FLOP over peak, while busy"),
    "mbu": num("bytes over peak bandwidth, while busy"), "bottleneck": text("in words"),
})  # fmt: skip
_STAGE = obj("layers of one kind on a stage", {
    "stage": count("number of the stage, from 0"), "layers": count("how many"),
    "cells": many(obj("a cell", {"cell": text("kind"), "layout": text("split"), "per_gpu": text("what lies on one GPU")}), "its cells"),
    "collectives": many(obj("a collective of one layer", {
        "kind": text("kind"), "per_layer": count("how many"), "group": count("GPUs"), "stride": count("ranks apart"), "link": text("link"),
        "bytes_per_token": num("byte"), "tokens": text("lane or all"), "split": count("parts that the tokens are cut into"),
        "words": text("in words"),
    }), "between GPUs"),
})  # fmt: skip
_SERIES = obj("the run over time, 60 means; kv_share is empty where nothing is cached", {
    name: many(num(""), told) for name, told in {
        "time_s": "middle of each part [s]", "running": "requests that run", "waiting": "requests that wait",
        "kv_share": "share of the KV cache in use", "sequences": "sequences in a step", "prompt_tokens": "prompt tokens in a step",
    }.items()
})  # fmt: skip
_LIMITS = many(obj("a limit on the run", {
    "limit": text("as typed"), "kept": flag("it holds"), "margin": num("share of it that is left; below 0 where missed", True),
    "allowed": num("the limit, in `unit`"), "measured": num("what it limits, in `unit`", True), "unit": text("ms or W"),
    "chance": num("that a real run keeps it, 0 to 1"),
}), "limits, with margins")  # fmt: skip
_INTERVALS = obj("how far a value may be off: factors between which measured over predicted lies", {
    "offset": num("scale of what all runs of the system share, in logs (Student t, three degrees of freedom)"),
    "rest": num("scale of what differs from run to run"),
    **{str(level): many(num("factor"), f"least and most in {level} of 100 cases") for level in LEVELS},
})  # fmt: skip
_POOLS = either_null(many(obj("a pool", {
    "role": text("prefill or decode"), "gpu": text("GPU"), "plan": _PLAN, "shorthand": text("its name"),
    "max_num_seqs": count("sequences that run at once"), "max_num_batched_tokens": count("tokens of one step"),
    "block_size": count("tokens of a block"), "room": _ROOM, "account": _ACCOUNT, "layout": many(_STAGE, "stage by stage"),
}), "prefill, then decode"), "of a plan of two pools each; null of one")  # fmt: skip
_WAIT = obj("where the mean time to the first token goes, of a plan of two pools; null of one", {
    "queue_ms": num("until the prompt's first step"), "prefill_ms": num("until its end"),
    "transfer_ms": num("router, hand-shake and cache on the way to the decode pool"), "slot_ms": num("until the decode pool takes it"),
    "step_ms": num("until the first token is out"),
}, null=True)  # fmt: skip
_HEADROOM = obj("how much more load it holds (--headroom, of the first plans)", {
    "times": num("the most load within the limits, over the load asked for; 0: none holds"),
    "low": num("lower end of the 68 % interval; null but for the first plan of one question", True), "high": num("upper end", True),
    "open_end": flag("it holds more than was tried"),
})  # fmt: skip
_RANKED = obj("a simulated plan", {
    "plan": either_null(_PLAN, "its factors; null of a plan of two pools"), "shorthand": text("its name, as --plan takes it"),
    "pools": _POOLS, "first_token": _WAIT, "value": num("the objective, in value_unit"),
    "ratio_to_heuristic": num("how many times better than the heuristic plan; null where that one is missing, or, of a latency, where it "
                              "does not keep up with the load", True),
    "keeps_constraints": flag("keeps every limit on the run"), "tie_with_best": flag("no worse than the first within the error"),
    "limits": _LIMITS, "chance": num("that a real run keeps all limits at once, 0 to 1; null without any", True),
    "intervals": by_name(_INTERVALS, "by metric"),
    "room": _ROOM, "metrics": _METRICS, "account": _ACCOUNT,
    "provenance": by_name(num("share"), "shares of priced time by where it comes from"), "layout": many(_STAGE, "stage by stage"),
    "launch": text("all commands that start it, as a shell takes them; null where the engine cannot", True),
    "launch_commands": many(text("command"), "the same one by one"),
    "launch_with": by_name(text("script of Dynamo's workers, or values of llm-d's chart; null where not written", True),
                           "the same of two pools under an orchestrator: dynamo, llm-d; {} of one"),
    "not_runnable": text("why the engine cannot", True), "launch_notes": many(text("note"), "what the command does not say"),
    "series": _SERIES,
    "drafts": obj("what drafting is worth to it; null where it does not draft", {
        "method": text("mtp, eagle3, ngram or draft"), "tokens": count("drafts of a step"),
        "length": num("tokens of a step that were simulated, its own among them"), "source": text("who says so"),
        "assumed": flag("nobody has measured it of this model and text"), "batch": num("mean sequences of a lane in the run"),
        "break_even": num("tokens of a step below which drafting loses at that batch"),
        "pays_to": count("sequences of a lane up to which it pays"), "all": flag("it pays at every batch that runs"),
    }, null=True),
    "headroom": _HEADROOM,
}, optional=("headroom",))  # fmt: skip
SHARED["ranked"] = _RANKED
_VERDICT = obj("the answer", {
    "sentences": many(text("sentence"), "as the report begins"), "plan": text("the plan that they speak of"),
    "keeps": _plain("boolean", "it keeps every limit; exit code 4 where not; null where there are none", True),
    "saturated": flag("it does not keep up with the load"),
    "limits": _LIMITS, "chance": num("that a real run keeps all of them at once, 0 to 1; null without any", True),
    "would_help": many(obj("a change that was simulated, and keeps everything", {
        "change": text("in words"), "plan": text("the plan that then does"),
        "inputs": by_name({}, "what to change of `inputs`; null drops it"),
    }), "where limits or load are not kept"),
    "not_enough": many(text("change"), "changes that were tried and do not suffice"),
})  # fmt: skip
_WORTH = obj("the best plan of two pools against the best of one; null where not both are ranked", {
    "sentence": text("the answer"), "apart": text("the best plan of two pools"), "together": text("the best of one"),
    "gain": num("how many times better two pools are by the objective"), "error": num("relative half width of a comparison"),
    "points": many(obj("the same requests with other prompts, or at another load", {
        "axis": text("prompt or load"), "factor": num("times what was asked"),
        "gain": num("how many times better; 0 where only one pool keeps limits and load, null where only two do or neither runs", True),
        "apart": text("the best plan of two pools there"), "together": text("the best of one there"),
    }), "one line each"),
}, null=True)  # fmt: skip
_HYPOTHETICAL = obj("plans that the engine cannot be started with; null where there are none", {
    "count": count("how many"), "ranked": flag("they stand in `ranked`"), "best": text("the first of them"),
    "value": num("its objective, in value_unit"), "ratio_to_best": num("how many times better than `best`", True),
    "keeps_constraints": flag("it keeps every limit"), "startable_by": many(text("engine"), "engines that can start it"),
    "reason": text("why this one cannot"),
}, null=True)  # fmt: skip
SHARED["pareto"] = obj("the Pareto front; null where none is asked for", {
    "goals": many(obj("a goal", {"name": text("as --pareto takes it"), "title": text("in words"), "unit": text("of its values"),
                                 "stat": text("statistic", True), "better": text("lower or higher")}), "in the order of the question"),
    "risk": num("chance that a value is worse than `at_risk`; 0: the median competes"),
    "members": many(obj("a plan that no other beats", {
        "label": text("combination, of lists; else empty"), "plan": text("its name"),
        "knee": flag("nearest to the best of every goal at once"), "values": many(num(""), "of each goal, in its unit"),
        "low": many(num(""), "lower ends of the 68 % intervals"), "high": many(num(""), "upper ends"),
        "at_risk": many(num(""), "what competes"),
    }), "by the first goal"),
    "beaten": count("plans that another beats in every goal"), "out": count("plans that miss a limit or do not keep up with the load"),
}, null=True)  # fmt: skip
STUDY = obj("`plan` and `simulate`", {
    "format": const(STUDY_FORMAT), "inputs": _INPUTS, "understood": _UNDERSTOOD, "objective": text("what is ranked by"),
    "value_unit": text("unit of value"), "slos": many(text("limit"), "all limits"), "power_cap_w": num("limit of a GPU's power [W]", True),
    "risk": num("chance of missing a limit that is allowed; 0: the median decides"),
    "heuristic": obj("the usual plan", {"shorthand": text("its name"), "note": text("why it is missing, if it is")}),
    "error_bars": obj("relative half widths", {"objective": num("of a value"), "comparison": num("of two plans: closer ones are ties")}),
    "verdict": _VERDICT, "worth": _WORTH,
    "best": either_null(ref("ranked"), "the best plan that the engine can be started with; null where it has no server or no such plan"),
    "funnel": many(obj("a step", {"name": text("step or rule"), "count": count("plans"), "example": text("one of them")}),
                   "what became of the plans"),
    "ranked": many(ref("ranked"), "plans that the engine can be started with (with --hypothetical, and of policies without a server, all "
                   "plans), best first; of `simulate` the plan, then the heuristic one"),
    "pareto": either_null(ref("pareto"), "of --pareto"),
    "tuned": obj("settings of the engine that are worth a flag (--tune); null where that was not asked for", {
        "plan": text("the plan that was tuned"), "tried": count("combinations simulated"),
        "value_before": num("the objective with the settings of the question, in value_unit"), "value": num("the same after all moves"),
        "moves": many(obj("a setting that is worth a change", {
            "setting": text("by our name"), "flag": text("the engine's word"), "before": num("its value"), "after": num("its new value"),
            "why": text("what that does"), "value_without": num("the objective with all moves but this"),
        }), "the fewest that are better than ties"),
        "left_alone": many(text("setting"), "walked, and no value is better than a tie"),
        "keeps_constraints": flag("keeps every limit"), "launch": text("commands with these settings", True), "metrics": _METRICS,
    }, null=True),
    "against": obj("this answer's first plan beside an earlier one's (--against); null without", {
        "plan": obj("the plans", {"before": text("earlier"), "after": text("now")}),
        "question": by_name(obj("what was asked otherwise", {"before": {"description": "earlier; null: not given"},
                                                             "after": {"description": "now"}}), "by keyword"),
        "metrics": by_name(obj("a number", {"before": num("earlier"), "after": num("now"), "unit": text("of both")}), "by title"),
    }, null=True),
    "sensitivity": {"type": ["array", "null"], "description": "what would change the winner (--sensitivity); null where that was not asked",
                    "items": obj("one thing changed", {
                        "what": text("in words"), "factor": num("times as much: the smallest step after which another plan wins, else the "
                                                                "largest that was tried"),
                        "winner": text("the plan that then wins by more than a tie; null: none does", True),
                        "gain": num("how many times better it is by the objective", True),
                        "why": text("what decides before the objective does: a limit, or the load", True)})},
    "hypothetical": _HYPOTHETICAL,
    "rejected": many(obj("a rule", {"rule": text("its name"), "count": count("plans"), "example": text("one, with the reason")}),
                     "plans that cannot be or do not fit"),
    "interrupted": obj("how far a stopped search came", {"done": count("plans"), "of": count("plans")}, null=True),
    "notes": many(text("note"), "what the user should know"),
})  # fmt: skip

SHARED["curve"] = obj("a plan under rising loads; null where none was looked at", {
    "label": text("combination or plan"), "load": text("users or requests/s"),
    "knee": num("load of most request_rate / e2e_mean_ms; null where that still rises at the last load", True),
    "loads": many(obj("a load", {
        "load": num("its size"), "request_rate": num("served [1/s]"), "goodput_req_s": num("null without limits of each request", True),
        "ttft_p95_ms": num("", True), "tpot_p95_ms": num("", True), "e2e_mean_ms": num("", True),
        "tok_s_user": num("1/TPOT, median", True), "tok_s_gpu": num("tokens of prompts and outputs per second and GPU"),
        "keeps": flag("keeps every limit on the run"), "saturated": flag("does not keep up with the load"),
    }), "ascending"),
}, null=True)  # fmt: skip
_ENDS = {
    "value": num("the answer"),
    "low": num("lower end of the 68 % interval", True),
    "high": num("its upper end; null where even the most that was tried does not suffice, or of further answers", True),
}
_SIZED = obj("an answer", {
    "gpu": text("its name"), "gpus": count("of all nodes"), "nodes": count("nodes"), "plan": text("its name"), **_ENDS,
    "open_end": flag("the limit was not met at the highest load that was tried: more may hold"),
    "request_rate": num("served [1/s]"), "in_flight": num("mean number of requests in the system"),
    "users": count("of a closed loop", True),
    "usd_per_hour": num("of all GPUs", True),
    "usd_per_million": obj("all the rent over the tokens of one kind, at the limit", {
        "input": num("[$]", True), "output": num("[$]", True), "total": num("both together [$]", True)}),
    "limits": _LIMITS, "attainment": num("share of requests that keep their own limits", True),
    "launch": text("how to start it; null where it cannot be", True),
})  # fmt: skip
_ANSWER = obj("null where something else was asked for, or nothing keeps the limits", _ENDS, null=True)
SIZE = obj("`size`", {
    "format": const(sizepage.FORMAT), "model": text("as typed"), "find": text("what was asked for"), "unit": text("of value, low and high"),
    "inputs": by_name({}, "the question"), "slos": many(text("limit"), "all limits"),
    "risk": num("chance of missing a limit that is allowed"),
    "share": num("of the requests that must keep limits of each request"), "think_s": num("pause of a user [s]"),
    "budget_usd_h": num("most rent [$/h]", True), "asked": num("rate [1/s] or users of the question", True),
    "sentences": many(text("sentence"), "the answer"),
    "max_request_rate": _ANSWER, "max_users": _ANSWER, "min_gpus": _ANSWER, "max_prompt_len": _ANSWER, "tightest_s": _ANSWER,
    "head_room": num("most load over what was asked", True),
    "found": many(_SIZED, "every plan or GPU that does, best first"), "unmet": many(text("what and why"), "tried in vain"),
    "nearest": either_null(_SIZED, "where nothing was found: what misses the limits by the least"),
    "would_help": many(text("change"), "changes after which there is an answer, simulated"),
    "curve": either_null(ref("curve"), "of the answer's plan, where a load was searched"),
    "price_may_rise": num("share by which the answer's price may rise until other GPUs that were asked about are as cheap"),
}, optional=("price_may_rise",))  # fmt: skip
_COUNTS = many(count("replicas"), "in each interval")
FLEET = obj("`fleet`", {
    "format": const(fleetpage.FORMAT), "model": text("as typed"), "inputs": by_name({}, "the question"),
    "slos": many(text("limit"), "all limits"), "share": num("of the requests that must keep limits of each request"),
    "every_s": num("length of an interval [s]"), "start_up_s": num("until a replica that is asked for serves [s]"),
    "hold": count("intervals for which a replica is kept that is no longer needed"), "spare": num("replicas on top, as a share"),
    "min_replicas": count("at any time"), "sentences": many(text("sentence"), "the answer"),
    "notes": many(text("note"), "what the figures rest on"), "gpu": text("GPU"), "plan": text("of one replica"),
    "gpus_per_replica": count("GPUs"), "request_rate_per_replica": num("that one serves within the limits, at a steady load [1/s]"),
    "launch": text("how to start a replica; null where it cannot be", True),
    "intervals": many(obj("an interval", {
        "begin_s": num("from the first request on [s]"), "requests": count("that come in it"),
        "replicas": count("fewest that keep the limits")}), "in order"),
    "policies": many(obj("a policy", {
        "policy": text("name"), "mean_replicas": num("paid"), "peak_replicas": count("paid"), "gpu_hours": num("paid"),
        "usd": num("rent of the whole time", True), "usd_per_day": num("rent [$/d]", True),
        "kwh": num("of the GPUs, the whole time", True), "kwh_per_day": num("of the GPUs [kWh/d]", True),
        "kept": num("share of intervals that keep the limits"),
        "late_requests": num("share of requests that come in intervals that miss them"), "paid": _COUNTS, "serving": _COUNTS,
    }), "as asked for"),
    "one_replica_lost": obj("what the busiest interval does with one replica fewer; null where it needs one", {
        "begin_s": num("of the interval [s]"), "replicas": num("that are left"),
        "attainment": num("share of requests that keep their own limits", True), "ttft_p95_s": num("[s]"), "tpot_p95_s": num("[s]"),
    }, null=True),
    "mix": obj("the cheapest mix of kinds in each interval, where several GPUs are named", {
        "kinds": many(obj("a kind of replica", {
            "gpu": text("GPU"), "plan": text("its plan"), "gpus_per_replica": count("GPUs"),
            "request_rate_per_replica": num("that one serves within the limits, at a steady load [1/s]"), "usd_per_hour": num("its rent"),
        }), "the one of the policies first"),
        "replicas": many(many(count("replicas"), "of each kind"), "in each interval"),
        "usd": num("rent of the whole time, as if replicas came and went at once"), "usd_alone": num("the same of the first kind alone"),
    }),
}, optional=("mix",))  # fmt: skip
_GPUS = many(count("GPUs"), "in each interval")
SHARED_FLEET = obj("`fleet` with several models", {
    "format": const(shared.FORMAT), "inputs": by_name({}, "the question, but for the models"), "gpu": text("GPU"),
    "gpus": count("of the cluster; null where it has as many as are asked for", True), "every_s": num("length of an interval [s]"),
    "begin_s": num("from the first moment of the cluster to that of the first interval that all traces have [s]"),
    "sentences": many(text("sentence"), "the answer"), "notes": many(text("note"), "what the figures rest on"),
    "peak_gpus": count("most that all models need in an interval"), "mean_gpus": num("that all models need"),
    "fixed_split_gpus": count("of a fixed split, each model its own peak"), "need": _GPUS, "lacking": _GPUS,
    "models": many(obj("a model", {
        "name": text("of its table"), "priority": num("the higher comes first"), "begins_s": num("of its trace, in the cluster's time [s]"),
        "first": count("its interval at which the common time begins"), "need": _GPUS,
        "policies": many(obj("a policy", {
            "policy": text("name"), "asked": _GPUS, "given": _GPUS, "serving": _GPUS,
            "kept": num("share of intervals that keep the limits"),
            "late_requests": num("share of requests that come in intervals that miss them"),
        }), "as asked for"),
        "alone": FLEET,
    }), "by name"),
    "policies": many(obj("a policy", {
        "policy": text("name"), "mean_gpus": num("that all models ask for"), "peak_gpus": count("that all models ask for"),
        "gpu_hours": num("given and paid"), "usd": num("rent of the common time", True), "kwh": num("of the GPUs, the common time", True),
        "short_intervals": count("in which the cluster has less than is asked for"),
        "most_short_gpus": count("by which it is short at worst"),
    }), "as asked for"),
})  # fmt: skip
_VALUE: Schema = {"type": ["string", "number", "null"]}
SWEEP = obj("`plan` with lists", {
    "format": const(sweep.FORMAT), "model": text("as typed"),
    "axes": many(obj("a word of the question with several values", {
        "name": text("as the API calls it"), "values": many(_VALUE, "in the order of the question; null is an infinite rate"),
        "load": flag("it is a load: its values are scenarios and not compared"),
    }), "loads first"),
    "objective": text("what is ranked by"), "slos": many(text("limit"), "all limits"),
    "sentences": many(text("sentence"), "the answer, as the report begins"),
    "keeps": flag("every scenario has a combination that keeps the limits; exit code 4 where not"),
    "interrupted": obj("how far a stopped sweep came", {"done": count("combinations"), "of": count("combinations")}, null=True),
    "pareto": either_null(ref("pareto"), "of --pareto: of all combinations"),
    "curves": many(ref("curve"), "of lists of rates or users: one for each combination of the rest"),
    "points": many(obj("a combination, in the order of the question", {
        "values": by_name(_VALUE, "by axis"), "fits": flag("there is a plan"),
        "why": text("why there is none"), "rank": count("place in its scenario, from 1"), "best": flag("the best of its scenario"),
        "cheapest": flag("of least rent among those that keep limits and load"), "plan": text("its best plan"), "gpu": text("GPU"),
        "gpus": count("GPUs in all"), "engine": text("engine and version"), "value": num("the objective, in SI units"),
        "error": num("relative half width of value"), "keeps": flag("keeps every limit"),
        "saturated": flag("does not keep up with the load"), "limits": _LIMITS,
        "usd_per_hour": num("rent of all GPUs [$/h]; null unknown", True), "metrics": _METRICS,
        "launch_commands": many(text("command"), "what starts it"), "headroom": _HEADROOM,
    }, optional=(
        "headroom", "why", "rank", "best", "cheapest", "plan", "gpu", "gpus", "engine", "value", "error", "keeps", "saturated", "limits",
        "usd_per_hour", "metrics", "launch_commands",
    )), "combinations"),
})  # fmt: skip

# ---- the rest -----------------------------------------------------------------------------------------------------------

_SIZED = {"users_full": num("users of full length at once"), "users_typical": num("users of typical length at once")}
FIT = obj("`fit`", {
    "format": const(ledger.FORMAT), "model": text("model"), "gpu": text("GPU"), "gpus": count("GPUs in all"), "cluster": _CLUSTER,
    "engine": text("engine and version"), "plan": text("the plan that was sized"),
    "flags": text("the widths of a replica as the engine is told them"), "max_model_len": count("longest prompt + output"),
    "fits": flag("the engine would start"), "gpu_memory_bytes": num("of one GPU"), "memory_fraction": num("in the engine's meaning"),
    "max_num_seqs": count("sequences that run at once"), "max_num_batched_tokens": count("tokens of one step"),
    "levers": many(obj("a change that was sized", {
        "kind": text("memory, tokens, sequences, kv, eager, length, weights, layout, together or gpus"),
        "change": text("the engine's words for it"), "plan": text("the plan then"), "gpus": count("GPUs then"),
        "max_model_len": count("longest request then"), "kv_bytes": num("KV cache then"), **_SIZED,
    }), "what would make it fit, or where room is little give more, in the order in which to try; changes that do not help are left out"),
    "ledger": many(obj("a line", {"line": text("what"), "bytes": num("byte")}), "memory of the tightest GPU"),
    "stage": count("the tightest stage"), "kv_bytes": num("KV cache"), "kv_range_bytes": many(num("byte"), "where start-up logs lay"),
    "kv_tokens": count("tokens that it holds"), "max_concurrency": num("requests of max_model_len at once"),
    "block_tokens": count("tokens of a block"), "block_bytes": num("bytes of a block"),
    "same_cache_fraction": by_name(num("fraction"), "the same cache as a fraction in each engine's meaning: total vLLM, static SGLang, "
                                   "free TensorRT-LLM"),
    "log": many(text("line"), "as the engine would log it"),
    "users": obj("users at once, on all GPUs together", {
        "full_length": count("tokens of a request of full length"), "full": num("users who send such"),
        "full_limited_by_sequences": flag("the engine's limit of sequences stops there, not the cache"),
        "typical_prompt": num("mean prompt of a typical request [tokens]"), "typical_output": num("its mean output [tokens]"),
        "typical_source": text("where these are from"), "typical": num("users who send such"),
        "typical_limited_by_sequences": flag("the engine's limit of sequences stops there, not the cache"),
    }),
    "others": many(obj("a layout", {"plan": text("its name"), "flags": text("as the engine is told"), **_SIZED}),
                   "further layouts that fit, where one node is not enough"),
    "notes": many(text("note"), "what the user should know"),
    "comparison": many(obj("a line of --log", {"line": text("what"), "logged": num("in the log"), "predicted": num("here")}),
                       "against a start-up log"),
    "log_settings": many(obj("a setting that the log tells", {
        "setting": text("its name here"), "logged": {"description": "its value in the log"},
        "used": {"description": "the value sized with"},
        "taken": flag("taken from the log, since it was not given"),
    }), "what the server was started with"),
    "log_missing": many(text("line"), "lines of a complete log that this one lacks"),
    "log_failure": text("what the engine said when it did not start; empty where it did"),
    "log_remarks": many(text("remark"), "what in the log explains differences"),
    "log_fraction": num("share of the GPU that the log's lines of use add up to; null where they do not say", True),
    "rule": text("of what does not fit: the rule"), "reason": text("the numbers"), "nearest": text("what would fit"), "error": _ERROR,
}, optional=("ledger", "stage", "kv_bytes", "kv_range_bytes", "kv_tokens", "max_concurrency", "block_tokens", "block_bytes",
             "same_cache_fraction", "log", "users", "others", "notes", "comparison", "log_settings", "log_missing", "log_failure",
             "log_remarks", "log_fraction", "rule", "reason", "nearest", "error"))  # fmt: skip
MODELS = many(obj("a bundled model", {
    "name": text("hub id"), "family": text("architecture"), "total_parameters": num("all"), "active_parameters": num("used by one token"),
    "max_length": count("longest context"), "aliases": many(text("name"), "other names"), "source": text("where the config is from"),
}), "`models`; empty where none matches")  # fmt: skip
GPUS = many(obj("a GPU", {
    "name": text("name"), "vendor": text("vendor"), "memory_bytes": num("as engines see it"), "memory_bandwidth_bytes_s": num("peak"),
    "flops": by_name(num("FLOP/s"), "dense peaks by format"), "link": text("between GPUs"), "link_bandwidth_bytes_s": num("per direction"),
    "link_span": count("GPUs that it joins"), "kernels": text("measured, from a relative, or roofline"),
    "price_usd_h": by_name(num("$/h"), "by price book"), "aliases": many(text("name"), "other names"),
    "notes": many(text("note"), "what to know of it"), "sources": by_name(text("source"), "of its figures"),
    "mig_profiles": many(text("profile"), "the MIG slices that it can be cut into"),
}), "`gpus`; empty where none matches")  # fmt: skip
ENGINES = many(obj("an engine", {
    "name": text("name"), "about": text("what it is"), "server": flag("it can be launched; else a batching policy"),
    "aliases": many(text("name"), "other names"), "oldest": text("first version with rules"), "newest": text("last that they hold for"),
    "settings": by_name(text("flag"), "its own words for settings"),
    "versions": many(obj("a version with rules, oldest first", {
        "version": text("version"), "released": text("day", True),
        "changes": many(obj("a constant", {"constant": text("name"), "before": {"description": "of the version before"},
                                           "now": {"description": "of this one"}}), "against the version before"),
    }), "versions"),
}), "`engines`; empty where none matches")  # fmt: skip
_LISTED = obj("lengths [tokens]", {"mean": num("mean"), "p50": num("median"), "p90": num("90th percentile"), "p99": num("99th"),
                                   "max": num("longest")})  # fmt: skip
WORKLOADS = many(obj("a workload preset", {
    "name": text("name, for --workload"), "about": text("what it stands for"), "prompt_tokens": _LISTED, "output_tokens": _LISTED,
    "rank_correlation": num("Spearman's, of prompt and output"), "requests": count("that the figures are of", True),
    "source": text("where they are from"), "url": text("its address"), "licence": text("its licence"), "note": text("worth knowing"),
    "percent": many(num("0 to 100"), "percentiles"), "prompt": many(num("tokens"), "prompt lengths at these"),
    "output": many(num("tokens"), "output lengths at these"),
}), "`workloads`; empty where none matches")  # fmt: skip
TRACE = obj("`trace describe`", {
    "format": const(tracepage.FORMAT), "source": text("file"), "trace_format": text("format of the file"), "requests": count("how many"),
    "span_s": num("first arrival to last [s]"), "prompt_tokens": ref("lengths"), "output_tokens": ref("lengths"),
    "context_tokens": ref("lengths"), "log_correlation": num("of prompt and output lengths", True),
    "ideal_hit": num("share of prompt tokens that an unlimited prefix cache would hold", True),
    "reachable_hits": many(obj("a size", {"cache_tokens": count("tokens of the cache"), "hit": num("share of tokens that it holds")}),
                           "the same of one cache of a size (LRU); empty where prefixes are not known"),
    "arrivals": obj("when requests come; null where the file has no times", {
        "request_rate": num("(n − 1) / span [1/s]"), "gap_s": ref("stats"), "gap_cv": num("standard deviation over mean of the gaps"),
        "burstiness": num("1 / cv²; null where all gaps are equal", True), "together": num("share that comes with the one before"),
        "windows": many(obj("counts in windows", {"window_s": num("width"), "peak_rate": num("[1/s]"), "dispersion": num("var / mean")}),
                        "by width"),
        "part_s": num("width of a part [s]"), "rate_over_time": many(num("1/s"), "rate in each part"),
    }, null=True),
    "skipped": count("lines passed over"), "faults": many(text("line"), "the first of them"), "notes": many(text("note"), "worth knowing"),
})  # fmt: skip
DEVICE = obj("`device check`", {
    "format": const(devicepage.FORMAT), "name": text("device"), "sound": flag("it can be used"),
    "findings": many(obj("a finding", {"level": text("error, warning or note"), "where": text("file, line"), "what": text("what is wrong"),
                                       "hint": text("what to do")}), "findings"),
    "operators": many(obj("an operator", {"operator": text("name"), "source": text("measured, transferred or roofline"),
                                          "detail": text("range or reason")}), "where times come from"),
    "error": _ERROR,
}, optional=("error",))  # fmt: skip
_RECORD = obj("a file of measured runs", {
    "format": const("apexsim.validation/1"), "kind": text("kind of file"), "file": text("its name"),
    "summary": obj("scores", {
        "rows": count("rows"), "predicted": count("rows that could be"), "coverage": num("their share"),
        "apart": count("predicted rows that are suspect or of another harness: in no score but those by what sets them apart"),
        "within": by_name(by_name(num("share of rows"), "by level [%]"), "measured values inside of the stated intervals, by metric"),
        "skipped": by_name(count("rows"), "the others, by reason"), "metrics": by_name(ref("scores"), "by metric"),
        "by": by_name(by_name(by_name(ref("scores"), "by metric"), "by value"), "by label, value and metric"),
    }),
    "rows": many(obj("a row", {
        "id": text("its id"), "status": text("ok or skipped"), "reason": text("why skipped, or a note"),
        "suspect": text("why the measurement is known to be off; empty = it is not"),
        "metrics": by_name(obj("a metric", {"measured": num("measured"), "predicted": num("predicted"),
                                            "error": num("predicted / measured − 1", True)}), "by metric"),
        "interval": by_name(by_name(many(num("low, high"), "the interval"), "by probability [%]: 68, 80, 95"),
                            "where the measured value is expected, by metric"),
        "labels": by_name({}, "what it is grouped by"), "provenance": text("of its kernel times"),
    }, optional=("provenance",)), "every row"),
})  # fmt: skip
VALIDATION: Schema = {"description": "`validate`: a record, or a list of them where several files are given",
                      "anyOf": [_RECORD, many(_RECORD, "several files")]}  # fmt: skip
_PAIR = {"ttft": "time to first token", "tpot": "time per output token", "itl": "gap between tokens", "e2el": "end to end"}
_LISTS = {
    "input_lens": "prompt tokens", "output_lens": "output tokens", "ttfts": "[s]", "itls": "gaps [s]", "latencies": "[s]",
    "start_times": "sending [s]", "queue_times": "late by [s]", "generated_texts": "answers", "errors": "empty where none",
    "requested_input_lens": "prompt tokens asked", "requested_output_lens": "output tokens asked",
}  # fmt: skip
_SUMMED = {
    "duration": "[s]", "total_input_tokens": "sum", "total_output_tokens": "sum", "request_throughput": "[1/s]",
    "output_throughput": "[tokens/s]", "total_token_throughput": "[tokens/s]", "max_concurrent_requests": "at once",
    "max_output_tokens_per_s": "in any second", "request_goodput": "null: no limits are known",
}  # fmt: skip
REPLAY = obj("`replay`: the keys of `vllm bench serve --save-result --save-detailed`, and some of our own", {
    "format": const(replaypage.FORMAT),
    **{name: {"description": told} for name, told in {
        "date": "start", "endpoint_type": "interface", "backend": "openai", "label": "apexsim", "url": "server", "model_id": "model",
        "tokenizer_id": "null", "request_rate": "[1/s], or inf", "burstiness": "null", "client_cpu_share": "of this program"}.items()},
    "num_prompts": count("requests"), "max_concurrency": count("users; null open loop", True), "mode": text("open, closed or offline"),
    "warmup": count("first ones left out"), "partial": flag("some did not finish"), "stopped": text("why it ended early"),
    "failed": count("requests"), "completed": count("requests"), **{name: num(told, True) for name, told in _SUMMED.items()},
    **{f"{stat}_{name}_ms": num(f"{told} [ms]", True) for name, told in _PAIR.items() for stat in SHOWN},
    **{name: many({}, f"by request: {told}") for name, told in _LISTS.items()},
    "comparison": obj("measured against predicted; null without --plan", {
        "plan": text("the plan"),
        "rows": many(obj("a metric", {"metric": text("name with its unit"), "stat": text("statistic", True), "measured": num("", True),
                                      "predicted": num("", True), "error": num("predicted / measured − 1", True)}), "metrics"),
        "median_abs_error_per_request": by_name(num("", True), "by metric"), "notes": many(text("note"), "of the prediction"),
    }, null=True),
    "error": _ERROR,
}, optional=(*_SUMMED, *(f"{stat}_{name}_ms" for name in _PAIR for stat in SHOWN), "error", "client_cpu_share", "date", "endpoint_type",
             "backend", "label", "url", "model_id", "tokenizer_id", "request_rate", "burstiness"))  # fmt: skip
_SHAPES = many(obj("a run to measure", {
    "prompt": count("[tokens]"), "output": count("[tokens]"), "users": count("at once"), "requests": count("in all"),
    "command": text("that measures it"),
}), "with a running server")  # fmt: skip
_HELD = {when: {"$ref": "#/$defs/scores", "description": told} for when, told in (
    ("before", "with all factors 1"), ("after", "with factors from the other runs"))}  # fmt: skip
CALIBRATION = obj("`calibrate`", {
    "format": const(CALIBRATION_FORMAT),
    "system": by_name(text("name"), "engine, release, model, gpu and formats of all runs"),
    "files": many(text("path"), "that were read"), "dates": many(text("day"), "that the files say"),
    "factors": by_name(obj("a factor", {
        "value": num("measured over predicted"), "low": num("a standard deviation below; null where it is not fitted", True),
        "high": num("… and above", True), "told": flag("the runs say it; else it stays near 1"), "means": text("what it multiplies"),
    }), "by cause: decode, prefill, launch, kv, power"),
    "errors": by_name(obj("of a metric, over runs that were held back", _HELD), "by metric"),
    "error_bars": by_name(obj("what is left, scales of Student's t in logs", {
        "offset": num("shared by all runs of the system"), "rest": num("differs from run to run"), "half": num("half the 68 % interval"),
    }), "by metric, for the profile"),
    "runs": many(obj("a run", {
        "where": text("file and place"), "plan": text("its plan"), "load": num("how many"),
        "load_is": text("users, req/s or requests at once"),
        "requests": count("in all"), "prompt_mean": num("[tokens]"), "output_mean": num("[tokens]"),
        "values": many(obj("a metric", {"metric": text("name with its unit"), "stat": text("statistic"), "measured": num("", True),
                                        "before": num("predicted with all factors 1", True),
                                        "after": num("predicted with factors from the other runs", True)}), "that was measured"),
    }), "that were used"),
    "passed": many(obj("a run", {"where": text("file and place"), "reason": text("why")}), "that were not used"),
    "odd": by_name(text("what it usually means"), "factors outside 0.6 to 1.6"), "next": _SHAPES,
    "profile": text("name under which it was kept", True),
})  # fmt: skip
SUGGESTION = obj("`calibrate --suggest`", {
    "format": const(calibratepage.SUGGESTED), "plan": text("that is served"), "runs": _SHAPES,
})  # fmt: skip
APEX = obj("`apex`", {
    "format": const(apexpage.FORMAT),
    "parts": many(obj("a search", {
        "role": text("encoder or decoder"),
        "schedules": many(obj("a plan as APEX+ counts, best first", {
            "shorthand": text("its name"),
            "performance": many(obj("a row", {"name": text("APEX+'s name"), "value": num("", True), "unit": text("unit")}), "of the page"),
            "slos": many(obj("a limit", {"metric": text("ttft or tpot"), "limit_ms": num("[ms]"), "attainment": num("share kept")}),
                         "limits"),
        }), "every schedule"),
        "study": STUDY,
    }), "encoder, then decoder"),
    "notes": many(text("note"), "what the numbers mean"),
})  # fmt: skip
ERROR = obj("a failure, of any command whose JSON goes to standard output; what was found out before stands beside it", {"error": _ERROR})
ANYTHING: Schema = {"description": "as it stands in the result"}
COMPARE = obj("`compare`", {
    "format": const(difference.FORMAT), "before": text("file"), "after": text("file"), "plans": many(text(""), "before and after"),
    "changed": many(obj("a difference", {"name": text("of the question, or of what was understood of it"), "before": ANYTHING,
                                         "after": ANYTHING}), "what was asked otherwise"),
    "metrics": many(obj("a metric", {"metric": text("its title"), "unit": text("of both"), "before": num(""), "after": num("")}),
                    "those that both know"),
    "why": many(obj("a class of work", {"class": text("its name"), "before_gpu_s": num("GPU seconds of each request"),
                                        "after_gpu_s": num("the same")}), "where the time went, largest change first"),
    "keeps": many(flag(""), "whether the limits were and are kept"),
    "comparison_error": num("relative difference that a comparison can tell", True),
})  # fmt: skip

OUTPUTS: dict[str, Schema] = {
    "study": STUDY, "sweep": SWEEP, "size": SIZE, "fleet": FLEET, "shared_fleet": SHARED_FLEET, "compare": COMPARE,
    "fit": FIT, "models": MODELS, "gpus": GPUS, "engines": ENGINES, "workloads": WORKLOADS,
    "trace": TRACE, "device": DEVICE,
    "validation": VALIDATION, "calibration": CALIBRATION, "suggestion": SUGGESTION, "replay": REPLAY, "apex": APEX, "error": ERROR,
}  # fmt: skip


def schema_of(name: str = "") -> Schema:
    """The schema of one output, or of all of them; raises InputError for an unknown name."""
    if name and name not in OUTPUTS:
        raise InputError(f"no output is called '{name}'", "NAME", nearest(name, OUTPUTS))
    if name:
        return {"$schema": DIALECT, "title": f"apexsim {name}", "$defs": SHARED, **OUTPUTS[name]}
    parts = [{"$ref": f"#/$defs/{each}"} for each in OUTPUTS]
    return {"$schema": DIALECT, "title": "apexsim", "anyOf": parts, "$defs": SHARED | OUTPUTS}


# ---- the page -----------------------------------------------------------------------------------------------------------

HEAD = """# JSON

Written by `apexsim schema --markdown`; a test keeps them equal, and another holds every output against the schema.

`--json PATH` writes a file, `--json -` (or `--json` alone) standard output, which then holds nothing else. Numbers are in the unit of
their key, or of the meaning beside it; what is unknown or not finite is `null`. The same question gives the same bytes. `apexsim
schema [NAME]` prints the JSON Schema (2020-12); its objects are closed.

A command that fails writes one line on standard error and, where its JSON goes to standard output, `{"error": …}` there. Exit codes:
0 done; 2 bad input; 3 sound, but nothing on this cluster can serve it (`nearest` says what would); 4 no plan keeps the limits (the
study is written as always); 130 interrupted.
"""


def json_page() -> str:
    """Every key of every output with its type and meaning."""
    parts = [HEAD]
    for name, schema in (*OUTPUTS.items(), *SHARED.items()):
        shared = " (in several outputs)" if name in SHARED else ""
        told = schema["description"]
        parts += [f"\n## {name}{shared}\n\n{told[:1].upper()}{told[1:]}.\n\n| key | type | meaning |\n|---|---|---|\n"]
        parts += [f"| `{path}` | {kind} | {meaning.replace('|', chr(92) + '|')} |\n" for path, kind, meaning in _rows(schema, "")]
    return "".join(parts)


def _rows(schema: Schema, path: str) -> list[tuple[str, str, str]]:
    """(path, type, meaning) of every key below a schema."""
    found: list[tuple[str, str, str]] = []
    if "anyOf" in schema:
        return _rows(schema["anyOf"][0], path)
    if "items" in schema:
        return _rows(schema["items"], f"{path}[]")
    for key, each in schema.get("properties", {}).items():
        at = f"{path}.{key}".removeprefix(".")
        found.append((at, _kind(each), str(each.get("description", "")) or " "))
        found += [] if each is STUDY else _rows(each, at)
    inner = schema.get("additionalProperties")
    return [*found, *(_rows(inner, f"{path}.*") if isinstance(inner, dict) else [])]


def _kind(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "$ref" in schema:
        return f"[{schema['$ref'].rpartition('/')[2]}](#{schema['$ref'].rpartition('/')[2]}-in-several-outputs)"
    if "const" in schema:
        return f"`{schema['const']}`"
    kinds = schema.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
