"""What servers can do and the simulation does not: asked for by its option, it is answered in one line (floor 7).

One table; docs/not-modelled.md is written from it (scripts/not_modelled_page.py).  A flag that ends in * stands for all that begin so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from apexsim.cli.options import flags_of_command
from apexsim.errors import InputError

COMMANDS = ("plan", "simulate", "size", "fit", "replay")


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that is not modelled: its name, what is simulated in its place, what to do, and the options that ask for it."""

    name: str
    instead: str
    todo: str
    flags: tuple[str, ...]


NOT_MODELLED = (
    Missing(
        "how blocks of a prefix are hashed and stored", "prefix caching is on, as in the engines, where requests name what they share",
        "drop it: a trace with hash_ids shares prefixes, lengths alone share none; --no-enable-prefix-caching turns it off",
        ("--enable-prefix-caching", "--prefix-caching-*", "--enable-kv-cache-reuse", "--enable-block-reuse", "--prefix", "--prefix-len",
         "--enable-radix-cache", "--mamba-cache-mode"),
    ),
    Missing(
        "an engine's own words for speculative decoding", "drafts are asked for by --speculate, or by +mtp:3 behind a plan",
        "drop it, and write --speculate mtp:3 or mtp:1..4 (docs/drafting.md); `apexsim fit --num-speculative-tokens` counts the memory",
        ("--speculative-*", "--num-speculative-tokens", "--spec-*", "--nextn", "--draft-*", "--mtp", "--num-nextn-*"),
    ),
    Missing(
        "how a connector is set up", "the cache is handed over as the engine does it by default",
        "drop it; two pools: --disaggregate, or simulate --plan 3xTP4+DEP8; --connector names what carries the cache",
        ("--disagg*", "--pd-disagg*", "--kv-transfer-*", "--kv-connector*", "--cache-transceiver-*", "--num-prefill-*",
         "--num-decode-workers", "--prefill-gpus", "--decode-gpus"),
    ),
    Missing(
        "LoRA adapters", "the base model serves every request",
        "drop it: the base model alone is simulated",
        ("--enable-lora*", "--lora-*", "--max-lora*", "--max-cpu-loras", "--fully-sharded-loras"),
    ),
    Missing(
        "a KV cache in CPU memory or on disk by the engine's own words", "what has no room in the GPU's cache is computed again",
        "drop it; --kv-offload cpu:200GB, or cpu:200GB,disk:2TB@6GB/s, says how much and how fast it is",
        ("--kv-offloading-*", "--swap-space", "--enable-hierarchical-cache", "--hicache-*", "--kv-cache-host-*", "--host-cache-size",
         "--enable-lmcache", "--lmcache-*"),
    ),
    Missing(
        "weights in CPU memory", "all weights are in the GPUs",
        "drop it; smaller weights: --quant fp8,int4, or more GPUs",
        ("--cpu-offload-*", "--offload-*"),
    ),
    Missing(
        "overlap of two half batches", "GPU to GPU traffic waits for the computation before it",
        "drop it: what is predicted is the server without it",
        ("--enable-dbo", "--dbo-*", "--enable-two-batch-overlap", "--enable-single-batch-overlap", "--tbo-*", "--enable-ubatching",
         "--ubatch-*"),
    ),
    Missing(
        "moving and copying experts while the server runs", "experts stay where they are",
        "drop it; --expert-load balanced is what a perfect balancer would reach",
        ("--enable-eplb", "--eplb-*", "--num-redundant-experts", "--ep-num-redundant-experts", "--enable-expert-distribution-metrics",
         "--init-expert-location"),
    ),
    Missing(
        "context parallelism", "each sequence is on the GPUs of one attention group",
        "drop it",
        ("--decode-context-parallel-size", "-dcp", "--prefill-context-parallel-size", "-pcp", "--cp-size", "--attention-context-*",
         "--attn-cp-size", "--enable-prefill-cp", "--dcp-*"),
    ),
    Missing(
        "structured outputs", "tokens are sampled freely",
        "drop it: masks for a grammar are not counted",
        ("--structured-outputs-*", "--guided-*", "--grammar-backend"),
    ),
    Missing(
        "scheduling by priority or by cached prefix", "requests are served in the order in which they come",
        "drop it (examples/extending/policy.py adds a rule)",
        ("--scheduling-policy", "--schedule-policy", "--enable-priority-scheduling"),
    ),
)  # fmt: skip
# Nothing is asked for that is not simulated: they switch off what is not modelled.
SWITCHED_OFF: tuple[str, ...] = ()
WITHOUT_OPTION = (
    (
        "sessions",
        "Turns wait for the answer before them where that is told: --turns, and traces with sessions. The turns of other traces are "
        "requests like others, sent at their own times however late the answers are.",
    ),
    (
        "drafts whose number follows acceptance",
        "K may follow the batch (--speculate mtp:3to32/1to128/0, docs/drafting.md), not how many are accepted: SGLang's "
        "--speculative-adaptive is not simulated. Nor are Medusa and EAGLE before its third kind.",
    ),
    (
        "caches of decode servers other than vLLM's",
        "Of two pools SGLang's and TensorRT-LLM's decode servers find no prefixes (SGLang's --disaggregation-decode-enable-radix-cache, "
        "off by default, is not simulated) and compute no prompts: --conditional-disagg is vLLM's.",
    ),
    (
        "GPUs of several kinds in one pool",
        "All GPUs of a cluster or a pool are alike; two pools may differ (simulate --plan 4xTP1+TP8@h200-sxm).",
    ),
    ("the network to the clients", "Times are those at the server's door."),
    ("start, failure and scaling of servers", "All servers run from the first request to the last."),
    ("quality", "Whether a quantised model answers well enough is not judged."),
)


def missing(flag: str) -> Missing | None:
    """The row of an option, if it asks for something that is not modelled."""
    return next((row for row in NOT_MODELLED if any(fnmatchcase(flag, pattern) for pattern in row.flags)), None)


def modelled(command: str, words: Sequence[str]) -> list[str]:
    """The words without options that switch off what is not simulated; raises InputError at one that asks for it."""
    if command not in COMMANDS:
        return list(words)
    own, kept = flags_of_command(command), []
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("-") or flag in own:
            kept.append(word)
        elif row := missing(flag):
            raise InputError(f"not modelled: {row.name} ({row.instead})", flag, row.todo)
        elif flag not in SWITCHED_OFF and not _off(flag):
            kept.append(word)
    return kept


def _off(flag: str) -> bool:
    return flag.startswith("--no-") and missing(f"--{flag.removeprefix('--no-')}") is not None


def page() -> str:
    """docs/not-modelled.md."""
    lines = [
        "# What is not modelled", "",
        "Written by `scripts/not_modelled_page.py` from `src/apexsim/cli/notmodelled.py`; a test keeps them equal.", "",
        "`plan`, `simulate`, `fit` and `replay` refuse an option that asks for one of these (exit code 2, in one line). What switches it",
        "off is taken, since that is what is simulated: `--no-enable-lora` and the like.", "",
        "| not modelled | simulated instead | what to do | asked for by |", "|---|---|---|---|",
        *(f"| {row.name} | {row.instead} | {row.todo} | {', '.join(f'`{flag}`' for flag in row.flags)} |" for row in NOT_MODELLED), "",
        "Without an option of their own:", "",
        *(f"- **{name}**: {words}" for name, words in WITHOUT_OPTION), "",
        "What a step leaves out is in [mechanisms.md](mechanisms.md#what-is-ignored).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
