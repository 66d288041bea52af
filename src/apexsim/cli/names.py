"""The names that people bring from other tools, as one table of hidden spellings (floor 7).

A name stands for an option of ours, with its values in our words; it works in every command that has that option.
The words that an engine's server has for its settings are in `data/engines`: they act on that engine only.
`docs/names.md` is written from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apexsim.engines import engine_aliases, engine_names, facts, flags_of
from apexsim.errors import InputError

Read = Callable[[str, str], Mapping[str, str]]  # (value, flag) -> option -> value; no value of ours is ""
TOTAL, VERSION, MODEL = "GPUs in all", "engine version", "MODEL"  # no options, but made into some with others in sight


@dataclass(frozen=True, slots=True)
class Name:
    """A spelling of other tools: the option it stands for, whose it is, and how its values read in ours (as they are)."""

    flag: str
    option: str
    whose: str
    read: Read | None = None
    bare: bool = False  # it takes no value

    def options(self, value: str) -> Mapping[str, str]:
        """Options and values that it means."""
        return self.read(value, self.flag) if self.read else {self.option: value}


def _table(option: str, words: Mapping[str, str]) -> Read:
    """Values by table, others as they are; "" says nothing."""

    def read(value: str, flag: str) -> Mapping[str, str]:
        found = words.get(value.strip().lower(), value)
        return {option: found} if found else {}

    return read


QUANTISED = {
    "none": "", "auto": "", "awq_marlin": "awq", "gptq": "int4", "gptq_marlin": "int4", "bitsandbytes": "nf4",
    "modelopt": "fp8", "modelopt_fp8": "fp8", "w8a8_fp8": "fp8", "fbgemm_fp8": "fp8", "modelopt_fp4": "nvfp4",
    "w8a8_int8": "w8a8", "w4afp8": "w4a8", "fp8_pb_wo": "fp8_block",
}  # fmt: skip
CONTAINERS = ("compressed-tensors", "auto-round", "quark", "torchao", "gguf")


def _quantised(value: str, flag: str) -> Mapping[str, str]:
    if value.strip().lower() in CONTAINERS:
        told = f"'{value}' names a way to store weights, not their format"
        raise InputError(told, flag, "the checkpoint says it; or give --weight-dtype")
    return _table("weight_dtype", QUANTISED)(value, flag)


def _eager(value: str, flag: str) -> Mapping[str, str]:
    return {"enforce_eager": ""}


def _chunk(value: str, flag: str) -> Mapping[str, str]:
    """SGLang's size of a chunk; -1 is its word for whole prompts."""
    return {"no_enable_chunked_prefill": ""} if value.strip() == "-1" else {"max_num_batched_tokens": value}


def _two_meanings(value: str, flag: str) -> Mapping[str, str]:
    told = "it has two meanings: lengths of R × L to L (SGLang), of (1 − R) × L to (1 + R) × L (vLLM)"
    raise InputError(told, flag, "give the mean length, and --length-spread with the half width over the mean")


CACHE = _table("kv_dtype", {"auto": "", "fp8_ds_mla": "fp8", "fp8_inc": "fp8", "nvfp4": "fp4"})
LOADS = "vLLM bench, SGLang bench"
NAMES = (
    *(Name(flag, "prompt_len", whose) for flag, whose in (
        ("--input-len", "vLLM bench"), ("--random-input-len", LOADS), ("--random-input", "SGLang bench"),
        ("--isl", "aiconfigurator, InferenceX"), ("--input-tokens", "GuideLLM"), ("--prompt-tokens", "GuideLLM"))),
    *(Name(flag, "output_len", whose) for flag, whose in (
        ("--random-output-len", LOADS), ("--random-output", "SGLang bench"), ("--osl", "aiconfigurator, InferenceX"),
        ("--output-tokens", "GuideLLM"))),
    *(Name(flag, "num_requests", whose) for flag, whose in (
        ("--num-prompts", LOADS), ("--num-prompt", "SGLang bench"), ("--max-requests", "GuideLLM"), ("--request-count", "aiperf"))),
    *(Name(flag, "concurrency", whose) for flag, whose in (
        ("--max-concurrency", LOADS), ("--users", "load testers"), ("--num-users", "load testers"))),
    *(Name(flag, "request_rate", whose) for flag, whose in (("--qps", "Vidur, load testers"), ("--rate", "GuideLLM"))),
    Name("--random-range-ratio", "length_spread", LOADS, _two_meanings),
    Name("--system", "gpu", "aiconfigurator"),
    *(Name(flag, TOTAL, whose) for flag, whose in (("--total-gpus", "aiconfigurator"), ("--num-gpus", "aiconfigurator, Ray"))),
    Name("--num-gpus-per-node", "gpus", "APEX+, aiconfigurator"),
    *(Name(flag, "nodes", whose) for flag, whose in (("--nnodes", "vLLM, SGLang"), ("--num-nodes", "APEX+"))),
    *(Name(flag, MODEL, whose) for flag, whose in (("--model", "vLLM, aiconfigurator"), ("--model-path", "SGLang, aiconfigurator"))),
    Name("--backend", "engine", "aiconfigurator"),
    Name("--backend-version", VERSION, "aiconfigurator"),
    *(Name(flag, "tp", whose) for flag, whose in (("-tp", "vLLM"), ("--tp-size", "SGLang, TensorRT-LLM"))),
    *(Name(flag, "pp", whose) for flag, whose in (("-pp", "vLLM"), ("--pp-size", "SGLang, TensorRT-LLM"))),
    *(Name(flag, "dp", whose) for flag, whose in (("-dp", "vLLM"), ("--dp-size", "SGLang"))),
    *(Name(flag, "ep", whose) for flag, whose in (("-ep", "SGLang"), ("--ep-size", "SGLang, TensorRT-LLM"))),
    Name("--kv-cache-dtype", "kv_dtype", "vLLM, SGLang", CACHE),
    *(Name(flag, "weight_dtype", "vLLM, SGLang", _quantised) for flag in ("--quantization", "-q")),
    Name("--trace-file", "trace", "APEX+"),
    Name("--disable-radix-cache", "no_enable_prefix_caching", "SGLang", lambda *_: {"no_enable_prefix_caching": ""}, True),
)  # fmt: skip
OF_ENGINES: Mapping[str, tuple[str, Read | None]] = {  # setting in data/engines -> (our option, how its values read)
    "memory_fraction": ("gpu_memory_utilization", None), "max_num_seqs": ("max_num_seqs", None),
    "max_num_batched_tokens": ("max_num_batched_tokens", None), "block_size": ("block_size", None),
    "max_model_len": ("max_model_len", None), "enforce_eager": ("enforce_eager", _eager),
    "capture": ("max_cudagraph_capture_size", None),
}  # fmt: skip
READS: Mapping[str, Read] = {"--chunked-prefill-size": _chunk}
EVERYWHERE = ("--max-model-len",)  # a word of vLLM that says the same of every engine


def engines_with_words() -> tuple[str, ...]:
    """Engines that have words of their own."""
    return tuple(name for name in engine_names() if "flags" in facts(name))


def name_of(flag: str) -> Name | None:
    """The row of a spelling that is none of ours."""
    for row in NAMES:
        if row.flag == flag:
            return row
    for engine in engines_with_words():
        for setting, word in flags_of(engine).items():
            if word == flag:
                option, read = OF_ENGINES[setting]
                return Name(flag, option, str(facts(engine)["about"]), READS.get(flag, read), option == "enforce_eager")
    return None


def check_word(flag: str, option: str, engine: str) -> None:
    """Raise InputError where a word belongs to another engine than the one that is asked about."""
    aliases = engine_aliases()
    names = [aliases.get(each, each) for each in (part.strip().lower().partition("@")[0] for part in engine.split(","))]
    name = names[0]
    owners = [other for other in engines_with_words() if flag in flags_of(other).values()]
    if name not in engine_names() or not owners or flag in EVERYWHERE:
        return
    family = str(facts(name)["engine"])
    if any(each in engine_names() and facts(each)["engine"] in owners for each in names):
        return
    setting = next((key for key, (ours, _) in OF_ENGINES.items() if ours == option), option)
    word = flags_of(family).get(setting)
    if word is None and flag == "--" + option.replace("_", "-"):
        return  # it has no word of its own for it
    told = f"it is a word of {' and '.join(str(facts(owner)['about']) for owner in owners)}"
    raise InputError(told, flag, f"{facts(family)['about']} calls it {word}" if word else f"{name} has no such setting")
