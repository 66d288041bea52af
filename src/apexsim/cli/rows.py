"""Every option of every command, as rows (floor 7).

A command is a mapping of groups of rows; its signature, its panels in the help, the checks of its numbers (in `options`) and the
test that every option is documented all come from here.  Names and defaults of engine settings are those of the engine.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from apexsim.errors import InputError

MOST_TOKENS = 1 << 30  # of a request: more is a slip
REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Opt:
    """One option: Python name, type, default, help, and what a number must keep.

    flags: spellings where they are not simply --name; least, most: limits of a number; above: `least` is refused too;
    endless: infinity has a meaning; tokens: a count of tokens, of which 1k is 1,024; bare: the value that the option has
    where none follows; several: more limits may follow; axis: a list with commas asks the
    question with each value; writes: it names a file (or with `folder` a folder) that the command writes; suffixes: how that may end.
    """

    name: str
    type: Any
    default: Any
    help: str
    metavar: str = ""
    flags: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    endless: bool = False
    writes: bool = False
    folder: bool = False
    suffixes: tuple[str, ...] = ()
    tokens: bool = False
    bare: str = ""
    several: bool = False
    axis: bool = False

    @property
    def flag(self) -> str:
        """The spelling shown in messages."""
        return self.flags[0] if self.flags else "--" + self.name.replace("_", "-")

    def check(self, value: float) -> None:
        """Raise InputError where a number is none, or out of bounds."""
        low = value <= self.least if self.above else value < self.least
        if value != value or low or value > self.most or (math.isinf(value) and not self.endless):
            kind = "a whole number" if self.type in (int, list[int]) else "a finite number" if math.isinf(value) else "a number"
            least = f" {'above' if self.above else 'of at least'} {self.least:,.12g}" if math.isfinite(self.least) else ""
            most = f" and at most {self.most:,.12g}" if math.isfinite(self.most) and (value > self.most or not least) else ""
            raise InputError(f"expected {kind}{least}{most}, got {value}", self.flag)


CLUSTER = (
    Opt("gpu", str, REQUIRED, "GPU, e.g. h100-sxm (see: apexsim gpus), or a .toml file or device folder; also with counts: h100:8, "
        "2x8xh100; a MIG slice: h100:3g.40gb.", "NAME", flags=("--gpu", "--device")),
    Opt("gpus", int, None, "GPUs per node, where --gpu does not say it.", "N", least=1, most=4096),
    Opt("nodes", int, None, "Nodes. Default: 1.", "M", least=1, most=4096),
    Opt("nic", str, None, "Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. "
        "Default: what the GPU's file assumes; the answer says it.", "SPEED"),
    Opt("pcie", str, None, "PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.", "SLOT"),
)  # fmt: skip
PRESET = Opt(
    "workload",
    str,
    None,
    "Requests with the lengths of a known use: chat, rag, code, summary, agent, reasoning … (see: apexsim workloads), or of a .toml file.",
    "NAME",
)
WORKLOAD = (
    Opt("trace", str, None, "Requests from a file: APEX JSONL (ns), Azure CSV, Mooncake JSONL …, detected.", "FILE"),
    PRESET,
    Opt("time_unit", str, None, "Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.", "UNIT"),
    Opt("map", str, None, "Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.", "COLUMNS"),
    Opt("prompt_len", int, None, "Synthetic requests: prompt tokens; 32k is 32,768.", "N", least=1, most=MOST_TOKENS, tokens=True),
    Opt("output_len", int, None, "Synthetic requests: output tokens.", "N", least=1, most=MOST_TOKENS, tokens=True),
    Opt("num_requests", int, None, "Synthetic requests: how many; 2k is 2,000. Default: 1,024.", "N", least=1, most=20_000_000),
    Opt("length_spread", float, None, "Half width of the lengths over their mean. Default: 0; 0.1 with --concurrency.",
        "X", least=0, most=1),
    Opt("prompt_cv", float, None, "Standard deviation over mean of the prompt lengths, drawn from --lengths: real traffic has 0.5 to 2.",
        "X", least=0, most=100, above=True),
    Opt("output_cv", float, None, "The same of the output lengths.", "X", least=0, most=100, above=True),
    Opt("lengths", str, None, "Distribution of --prompt-cv and --output-cv: lognormal (default), gamma or uniform.", "NAME"),
    Opt("request_rate", float, None, "Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no "
        "times. inf: all at once.", "R", least=0, above=True, endless=True),
    Opt("burstiness", float, None, "Shape of the gamma-distributed gaps; 1 is Poisson (default), below 1 burstier.",
        "B", least=0, above=True),
    Opt("concurrency", int, None, "Closed loop: C users, each sends the next request when the last has finished.",
        "C", least=1, most=20_000_000),
    Opt("seed", int, None, "Seed of lengths and arrivals. Default: 0.", "S", least=0),
    Opt("warmup", int, None, "Requests at the start that metrics leave out. Default: in a closed loop the first of each user, where "
        "that leaves as many; else 0.", "N", least=0),
    Opt("stages", str, None, "Load in stages, RATE:SECONDS each: 3:20,10:20. A stage begins when the last request of the one before has "
        "ended.", "STAGES"),
    Opt("shared_prefix", str, None, "A prefix in front of each prompt, drawn from COUNT of so many TOKENS: 2000x50; 2000x50:even uses "
        "each as often.", "TOKENSxCOUNT"),
    Opt("turns", int, None, "Requests are turns of sessions, N each: a prompt is all that was said so far, and --prompt-len more.", "N",
        least=2, most=10_000),
    Opt("turn_gap", float, None, "Seconds from an answer to the next turn. Default: 0.", "S", least=0, most=1e7),
    Opt("images", int, 0, "Images in every request (vision models): their tokens and encoding are added.", "N", least=0),
    Opt("image_size", str, None, "Pixels of an image. Default: 1024x1024.", "WxH"),
    Opt("rate_factor", float, None, "What if requests came so many times as fast.", "X", least=0, above=True),
    Opt("prompt_factor", float, None, "What if prompts were so many times as long.", "X", least=0, above=True),
    Opt("output_factor", float, None, "What if outputs were so many times as long.", "X", least=0, above=True),
    Opt("classes", str, None, "Classes of requests, whose limits --slo then takes (chat:ttft:p95=500ms): a column of the trace, or prompt "
        "lengths: short:2k,long.", "WHAT"),
    Opt("too_long", str, "error", "Requests longer than the model length: error, drop or clip.", "HOW"),
)  # fmt: skip
ENGINE = (
    Opt("engine", str, "vllm", "Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, "
        "orca, apex (see: apexsim engines). Its settings have its own words: docs/names.md.", "NAME"),
    Opt("max_num_seqs", int, None, "Sequences that run at once. SGLang: --max-running-requests; TensorRT-LLM: --max-batch-size.",
        "N", least=1),
    Opt("max_num_batched_tokens", int, None, "Tokens of one step. SGLang: --chunked-prefill-size; TensorRT-LLM: --max-num-tokens.",
        "N", least=1, tokens=True),
    Opt("gpu_memory_utilization", float, None, "Share of the GPU's memory that the engine may use. SGLang: --mem-fraction-static; "
        "TensorRT-LLM: --kv-cache-free-gpu-memory-fraction.", "X", least=0, most=1, above=True),
    Opt("max_model_len", int, None, "Longest prompt + output. Default: that of the workload, rounded up to 1,024.",
        "N", least=2, tokens=True),
    Opt("block_size", int, None, "Tokens of a KV block. SGLang: --page-size; TensorRT-LLM: --tokens-per-block.", "N", least=1),
    Opt("enable_chunked_prefill", bool, False, "Cut prompts into chunks, beside decodes. Default: the engine's."),
    Opt("no_enable_chunked_prefill", bool, False, "Process prompts whole."),
    Opt("no_enable_prefix_caching", bool, False, "Compute every prompt in full. SGLang: --disable-radix-cache."),
    Opt("enforce_eager", bool, False, "No CUDA graphs. SGLang: --disable-cuda-graph."),
    Opt("max_cudagraph_capture_size", int, None, "Largest step that CUDA graphs hold, prompts among them where the engine captures these. "
        "SGLang: --cuda-graph-max-bs.", "N", least=1, most=1 << 16),
    Opt("sampling", str, None, "How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).", "HOW"),
    Opt("route", str, "round-robin", "How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, "
        "cache-aware, prefix-hash, llm-d, dynamo, session or session-hash (docs/caching.md).", "HOW"),
    Opt("signal_age", float, None, "Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; "
        "0.1 of least-waiting.", "S", least=0, most=1e6),
    Opt("kv_offload", str, None, "Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's "
        "peak), disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).", "TIERS"),
)  # fmt: skip
PRECISION = (
    Opt(
        "weight_dtype",
        str,
        None,
        "bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.",
        "DTYPE",
    ),
    Opt("activation_dtype", str, None, "Default: what the weights' kernels take.", "DTYPE"),
    Opt("dtype", str, None, "Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.", "DTYPE"),
    Opt("kv_dtype", str, None, "KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.", "DTYPE"),
    Opt(
        "expert_load",
        str,
        None,
        "Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.",
        "LOAD",
    ),
)
AXES = (
    Opt("quant", str, None, "Weight formats to search, e.g. auto,fp8,int4; auto is the checkpoint's own.", "LIST"),
    Opt("clock", str, None, "SM clocks to search [MHz], e.g. 810,1410,1980; the GPU's own is its highest.", "LIST"),
    Opt(
        "pareto",
        str,
        None,
        "Plans that no other beats in two or three goals, e.g. tok/s/user,tok/s/GPU; also $, $/h, W, J, throughput, "
        "goodput, a latency (ttft:p99).",
        "GOALS",
    ),
    Opt("tune", bool, False, "Walk the engine's settings around the best plan: which are worth a flag, and why."),
    Opt("sensitivity", bool, False, "Say what would change the winner: speeds, bandwidths, loads and lengths up to twice and half."),
    Opt(
        "headroom",
        bool,
        False,
        "Say of each plan shown, with lists of each combination, how many times the load it holds within the limits (without any: "
        "until its queue grows).",
    ),
    Opt(
        "speculate",
        str,
        None,
        "Drafts to search: METHOD:K or METHOD:K..K, with commas; a range is compared with none. Methods: mtp, "
        "eagle3, ngram, and draft with a model; e.g. mtp:1..4, draft:qwen3-0.6b:3, by sequences of a step mtp:3to32/1to128/0.",
        "LIST",
    ),
    Opt("hypothetical", bool, False, "Rank also what the engine cannot be started with."),
)
POOLS = (
    Opt("disaggregate", bool, False, "Plans with a pool for prompts and one for tokens, too (3×TP4+DEP8): is it worth it?"),
    Opt("prefill_settings", str, None, "Of the prefill pool alone: max-num-seqs=64,max-num-batched-tokens=16k.", "LIST"),
    Opt("decode_settings", str, None, "Of the decode pool alone.", "LIST"),
    Opt("connector", str, None, "What carries the cache between pools: nixl, mooncake (vLLM, SGLang) or ucx (TensorRT-LLM). Default: the "
        "engine's.", "NAME"),
    Opt("conditional_disagg", str, None, "Prompts that decode servers compute (vLLM): with fewer uncached tokens than TOKENS, and a "
        "smaller uncached SHARE; busy:STEPS: all while their prefill server has more than so many of its largest steps to compute. "
        "E.g. 2048,0.7.", "LIST"),
)  # fmt: skip
PROFILE = Opt("profile", str, None, "Calibrated by your own runs: a profile that `apexsim calibrate --save NAME` kept.", "NAME")
GOAL = (
    Opt("objective", str, "e2e", "ttft, tpot, itl, e2e, each :mean, :p50, :p95 or :p99; throughput; goodput; cost; energy (of GPUs); "
        "wall-energy (of servers).", "WHAT"),
    Opt("slo", list[str], [], "ttft:p95=500ms is a limit on the run: plans missing it rank last; ttft=500ms counts the requests that "
        "keep it (goodput); chat:ttft:p95=500ms is of one class (--classes). Unit: ms (default), s. "
        "May be repeated.", "LIMIT", several=True),
    Opt("ttft", str, None, "Short for --slo ttft:p95=MS: 95 of 100 requests get their first token in time.", "MS"),
    Opt("tpot", str, None, "Short for --slo tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.", "MS"),
    Opt("goodput", list[str], [], "Limits of each request, as of vllm bench serve: ttft:500 tpot:50 [ms]. May be repeated.",
        "LIMIT ...", several=True),
    Opt("power_cap", float, None, "Mean power that each GPU may draw [W]; plans above it rank last, --clock offers slower ones.",
        "W", least=0, above=True),
    Opt("risk", float, 0.0, "Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the "
        "median decides.", "P", least=0, most=0.5),
    Opt("price", str, None, "Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' "
        "costs). Default: on-demand, for every GPU.", "PRICE"),
    Opt("server_overhead", float, None, "Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.", "W", least=0),
    Opt("pue", float, None, "Power of the facility over that of its servers. Default: 1.3.", "X", least=1),
)  # fmt: skip
REPORT = (
    Opt("top", int, None, "Plans shown. Default: 10; of lists 40 combinations of each load.", "K", least=1),
    Opt("all", bool, False, "Show every plan with every statistic."),
)
JSON = Opt(
    "json",
    str,
    None,
    "Write all results as JSON (docs/json.md); - (or nothing) is standard output, which then holds nothing else, of a failure too.",
    "[PATH]",
    bare="-",
    writes=True,
)
OUTPUT = (
    JSON,
    Opt("output", str, None, "Write the report to a file instead of the screen.", "PATH", flags=("--output", "-o"), writes=True),
)
AGAINST = Opt("against", str, None, "Hold the answer against an earlier one, a file of --json: before → after.", "FILE")
PERFETTO = Opt(
    "perfetto",
    str,
    None,
    "Write the run for ui.perfetto.dev: batches, requests and counters of each replica.",
    "PATH",
    writes=True,
    suffixes=(".json",),
)
PICTURES = (
    Opt("html", str, None, "Write the whole report as one file for a browser, offline, with charts.", "PATH", writes=True,
        suffixes=(".html", ".htm")),
    Opt("plot", str, None, "Draw latency against the load and the Pareto front into a picture (.svg, .png, .pdf); needs matplotlib.",
        "PATH",
        writes=True),
)  # fmt: skip
CSV = Opt("csv", str, None, "Write the rows of the answer as CSV; - is standard output.", "PATH", writes=True)
PARQUET = Opt("parquet", str, None, "Write the rows of the answer as Parquet; needs pyarrow.", "PATH", writes=True)
TABLES = (CSV, PARQUET)
AS_MEASURED = (
    Opt("bench_json", str, None, "Write the first plan's run as vllm bench serve writes a measured one.", "PATH", writes=True),
    Opt("benchmark_report", str, None, "Write it as llm-d's Benchmark Report v0.2 (YAML).", "PATH", writes=True),
)
FILES = (*TABLES, *AS_MEASURED, *PICTURES)
SIZED_FILES = (*TABLES, *PICTURES)
FLEET_FILES = (*REPORT[1:2], *OUTPUT, *TABLES, PICTURES[0])
RAY = Opt(
    "ray",
    str,
    None,
    "Search on Ray: started here, or the cluster at ADDRESS (HOST:PORT, ray://HOST:PORT, auto).",
    "[ADDRESS]",
    bare="local",
)
EMIT = (
    JSON,
    replace(OUTPUT[1], help="Write the report to a file instead of the screen; with --emit, the folder of its files."),
    Opt("emit", str, None, "Files that start the plan, into the folder -o DIR: run.sh, compose, k8s, lws, kserve, llm-d, dynamo, "
        "vllm-sweep, bench (docs/deploy.md).", "LIST"),
    Opt("force", bool, False, "Replace files of these names in the folder of --emit."),
)  # fmt: skip
WORKERS = (Opt("workers", int, 0, "Threads, or tasks of Ray, at once; 0 takes the cores there are.", "N", least=0, most=1024), RAY)
WIDTHS = (
    Opt("tp", int, None, "Tensor parallel width of attention; replicas fill the rest.", "T", least=1,
        flags=("--tp", "--tensor-parallel-size")),
    Opt("pp", int, None, "Pipeline stages.", "P", least=1, flags=("--pp", "--pipeline-parallel-size")),
    Opt("dp", int, None, "Attention lanes inside one replica of an expert model; otherwise replicas.", "D", least=1,
        flags=("--dp", "--data-parallel-size")),
    Opt("ep", int, None, "Parts over which experts are spread, 1: cut like other layers.", "E", least=1,
        flags=("--ep", "--expert-parallel-size")),
    Opt("enable_expert_parallel", bool, False, "Experts are spread over tp × dp instead of cut."),
)  # fmt: skip
PLAN = (
    Opt(
        "plan",
        str,
        None,
        "As `apexsim plan` prints it: TP8, 2×TP4 (or 2xTP4, tp4 pp2), DP2TP4/TP8, DEP8, 3xTP4+DEP8 …; or by its widths.",
        "PLAN",
    ),
    *WIDTHS,
)
SIZED_PLAN = Opt("plan", str, None, "Instead of widths, as `apexsim plan` prints it: TP8, 2×TP4, DEP8 …", "PLAN")
SIZED_ENGINE = (
    *(opt for opt in ENGINE if opt.name in ("engine", "max_num_seqs", "max_num_batched_tokens", "block_size", "enforce_eager",
                                              "max_cudagraph_capture_size")),
    Opt("gpu_memory_utilization", float, None, "The engine's own memory fraction, in its own meaning. SGLang: --mem-fraction-static; "
        "TensorRT-LLM: --kv-cache-free-gpu-memory-fraction.", "X", least=0, most=1, above=True),
    Opt("max_model_len", int, None, "Longest prompt + output. Default: the model's.", "L",
        least=2, tokens=True),
    Opt("num_speculative_tokens", int, None, "Draft tokens of the model's own multi-token-prediction layers.", "N", least=1),
)  # fmt: skip
SIZED_USERS = (
    Opt("prompt_len", int, None, "Prompt tokens of a typical request. Default: 1,024, and as many of output.", "N", least=1,
        most=MOST_TOKENS, tokens=True),
    Opt("output_len", int, None, "Output tokens of a typical request.", "N", least=1, most=MOST_TOKENS, tokens=True),
    Opt("trace", str, None, "Typical requests are those of a file, of any format that `apexsim trace` reads.", "FILE"),
    Opt("workload", str, None, "Typical requests are those of a known use: chat, rag, code … (see: apexsim workloads), or of a .toml file.",
        "NAME"),
    *(opt for opt in WORKLOAD if opt.name == "map"),
)  # fmt: skip
STORED = tuple(opt for opt in PRECISION if opt.name not in ("activation_dtype", "expert_load"))
SIZED_OUTPUT = (
    Opt(
        "log",
        str,
        None,
        "Hold the prediction against a start-up log, line by line; settings that are not given here are taken from it. "
        "- reads standard input.",
        "FILE",
    ),
    JSON,
)
LIST_JSON = (JSON,)
JSON_PAGE = Opt("markdown", bool, False, "The page docs/json.md instead: every key with its meaning.")

TRACE_FILE = (
    Opt("format", str, "auto", "Format of the file, where detection is not wanted: apex, azure, mooncake …", "NAME"),
    *(opt for opt in WORKLOAD if opt.name in ("time_unit", "map")),
    Opt("skip_bad", int, 0, "Lines that cannot be used and are passed over; they are counted and named.", "N", least=0),
    Opt("chars_per_token", float, None, "Estimates the lengths of files that hold text (ShareGPT).", "X", least=0, above=True),
)
TRACE_OUTPUT = (
    Opt("to", str, "apex", "Format: apex, azure, mooncake, dynamo, vidur, llmservingsim or request-log.", "NAME"),
    Opt(
        "output",
        str,
        None,
        "Write to a file, replaced in one step. Default: standard output.",
        "PATH",
        flags=("--output", "-o"),
        writes=True,
    ),
)
TRACE_DESCRIBED = (
    JSON,
    Opt("plot", str, None, "Draw lengths and arrivals into a picture (.png, .svg, .pdf); needs matplotlib.", "PATH", writes=True),
)
TRACE_MADE = (
    PRESET,
    Opt("prompt_len", float, None, "Mean of the prompt lengths [tokens].", "N", least=1, most=2**30, tokens=True),
    Opt("output_len", float, None, "Mean of the output lengths [tokens].", "N", least=1, most=2**30, tokens=True),
    Opt("prompt_cv", float, 0.0, "Standard deviation over mean of the prompt lengths; 0: all the same.", "X", least=0, most=100),
    Opt("output_cv", float, 0.0, "The same of the output lengths.", "X", least=0, most=100),
    Opt("lengths", str, "lognormal", "Distribution of lengths: lognormal, gamma or uniform.", "NAME"),
    Opt("like", str, None, "Draw pairs of lengths, rate and burstiness from a trace instead.", "FILE"),
    Opt("num_requests", int, 1024, "Requests.", "N", least=1, most=100_000_000),
    Opt(
        "request_rate",
        float,
        None,
        "Mean requests per second. Default: that of --like; else all at once.",
        "R",
        least=0,
        above=True,
        endless=True,
    ),
    Opt(
        "burstiness",
        float,
        None,
        "Shape of the gamma-distributed gaps; 1 is Poisson, below 1 burstier. Default: that of --like; else 1.",
        "B",
        least=0,
        above=True,
    ),
    Opt("max_length", int, None, "Longest prompt, and longest output.", "N", least=1, tokens=True),
    Opt("seed", int, 0, "Seed of lengths and arrivals.", "S", least=0),
    *(opt for opt in WORKLOAD if opt.name in ("shared_prefix", "turns", "turn_gap")),
)
TRACE_TEXTS = (
    Opt(
        "tokenizer",
        str,
        None,
        "A tokenizer.json, a folder that holds one, or a hub name in the local cache; needs the extra 'tokenize'.",
        "NAME",
    ),
    Opt("download", bool, False, "Fetch the tokenizer from the hub where the cache has none."),
    Opt("chars_per_token", float, None, "Without a tokenizer: estimate by characters; 4 is usual for English.", "X", least=0, above=True),
    Opt("tokens_per_word", float, None, "Without a tokenizer: estimate by words; 1.3 is usual for English.", "X", least=0, above=True),
    Opt("prompt_field", str, None, "Column of the prompt. Default: prompt, instruction, question … or a conversation.", "NAME"),
    Opt("output_field", str, None, "Column of the answer. Default: completion, output, response, answer …", "NAME"),
    Opt("turns", str, "first", "Of a conversation: the first turn, or all, each after what was said before.", "HOW"),
    Opt("output_len", int, None, "Output tokens of every request, instead of the answers' own.", "N", least=1, tokens=True),
    Opt("skip_bad", int, 0, "Records that cannot be used and are passed over; they are counted and named.", "N", least=0),
)
TRACE_SENT = (
    Opt("max_model_len", int, None, "Leave out requests with more prompt + output tokens.", "N", least=2, tokens=True),
    Opt("limit", int, None, "The first N requests of those.", "N", least=1),
    Opt("request_rate", float, None, "Mean requests per second. Default: all at once.", "R", least=0, above=True, endless=True),
    Opt("burstiness", float, 1.0, "Shape of the gamma-distributed gaps; 1 is Poisson, below 1 burstier.", "B", least=0, above=True),
    Opt("turn_gap", float, 30.0, "Seconds from one turn of a conversation to the next, with --turns all.", "S", least=0),
    Opt("seed", int, 0, "Seed of the arrivals.", "S", least=0),
)
TRACE_LIMITS = (
    Opt("min_prompt", int, None, "Shortest prompt [tokens].", "N", least=1, tokens=True),
    Opt("max_prompt", int, None, "Longest prompt [tokens].", "N", least=1, tokens=True),
    Opt("min_output", int, None, "Shortest output [tokens].", "N", least=1, tokens=True),
    Opt("max_output", int, None, "Longest output [tokens].", "N", least=1, tokens=True),
    Opt("max_context", int, None, "Longest prompt + output [tokens].", "N", least=2, tokens=True),
    Opt("since", str, None, "Requests from this time on, which becomes 0: 90s, 10min, 2h.", "TIME"),
    Opt("until", str, None, "Requests before this time.", "TIME"),
    Opt("head", int, None, "The first N of those.", "N", least=1),
    Opt("share", float, None, "A random share of those; each stays with this probability.", "X", least=0, most=1, above=True),
    Opt("seed", int, 0, "Seed of the random share.", "S", least=0),
)
TRACE_LOAD = (
    Opt("rate_factor", float, None, "Arrivals so many times as fast.", "X", least=0, above=True),
    Opt("request_rate", float, None, "Arrivals stretched to this mean rate [1/s].", "R", least=0, above=True),
    Opt("prompt_factor", float, 1.0, "Prompt lengths times this.", "X", least=0, above=True),
    Opt("output_factor", float, 1.0, "Output lengths times this.", "X", least=0, above=True),
)  # fmt: skip

APEX_MODEL = (
    Opt("model", str, REQUIRED, "APEX+'s shortcut, or any name that `apexsim models` knows, or the path of a config.json.", "NAME"),
    Opt("num_experts", int, None, "Experts of each layer; makes experts of a dense model's FFN. Default: the model's.", "N", least=1),
    Opt("topk", int, None, "Experts per token. Default: the model's; 2 where --num-experts makes them.", "K", least=1),
    Opt("capacity_factor", float, 1.0, "Slots of each expert over its even share of the tokens.", "X", least=0, most=1000, above=True),
)
APEX_CLUSTER = (
    Opt("num_nodes", int, 1, "Nodes.", "N", least=1, most=4096),
    Opt("num_gpus_per_node", int, REQUIRED, "GPUs of each node.", "N", least=1, most=4096),
    Opt("encoder_gpus", int, None, "GPUs of one node for the encoder. Default: as many as the decoder has.", "N", least=1, most=4096),
    Opt("gpu", str, "H100-SXM-80GB", "GPU (see: apexsim gpus).", "NAME"),
    Opt("frequency", int, 0, "SM clock [MHz]; 0: the GPU's own.", "MHZ", least=0),
)
APEX_WORKLOAD = (
    Opt("trace_file", str, None, "Requests from a file, of any format that `apexsim trace` reads.", "FILE"),
    Opt("prompt_len", int, 2048, "Without a trace: prompt tokens.", "N", least=1, most=MOST_TOKENS),
    Opt("output_len", int, 128, "Without a trace: output tokens.", "N", least=1, most=MOST_TOKENS),
    Opt("num_requests", int, 1024, "Without a trace: requests, all at once.", "N", least=1, most=20_000_000),
    Opt(
        "audio_seconds",
        float,
        None,
        "Whisper: length of each recording, cut into windows of 30 s, each a request.",
        "S",
        least=0,
        above=True,
    ),
    Opt("image_size", int, None, "CLIP: pixels a side. Default: the model's.", "PX", least=1, most=8192),
    Opt("disable_ray", bool, False, "Search on one thread."),
    RAY,
    Opt("kv_dtype", str, "half", "float, half, float8, or another format.", "DTYPE"),
    Opt("weight_dtype", str, "half", "As --kv-dtype.", "DTYPE"),
    Opt("activation_dtype", str, "half", "As --kv-dtype; products are made in the wider of both.", "DTYPE"),
    Opt("max_batch_size", int, 0, "Requests that run at once on each attention replica; 0: no limit.", "N", least=0),
)
APEX_OUTPUT = (
    JSON,
    Opt("all", bool, False, "Print every schedule."),
    Opt("request_percentiles", list[int], [], "Further percentiles of completion latency: 75 99.", "P ...", least=0, most=100),
    Opt("token_percentiles", list[int], [], "Further percentiles of the time between tokens.", "P ...", least=0, most=100),
    Opt("ttft_slo", float, 10.0, "Limit of each request's TTFT [ms].", "MS", least=0, above=True),
    Opt("tpot_slo", float, 10.0, "Limit of each request's TPOT [ms].", "MS", least=0, above=True),
)  # fmt: skip

KEPT = (
    Opt("name", str, None, "Name to keep it under. Default: that of device.toml.", "NAME"),
    Opt("force", bool, False, "Replace a device of this name."),
)
PROFILED = (
    Opt(
        "out",
        str,
        REQUIRED,
        "Device folder to write; what it holds already is kept and not measured again.",
        "DIR",
        writes=True,
        folder=True,
    ),
    Opt("gpu", str, None, "What the accelerator is, where its own name is not in the catalogue.", "NAME"),
    Opt("dtype", str, "bf16", "Formats of matrix products, with commas: bf16, fp16, fp32.", "LIST"),
    Opt("tolerance", float, 0.05, "Error of interpolation above which a size is measured between two.", "X", least=0.001, most=1),
    Opt("budget", float, None, "Stop after so many minutes; start again to go on.", "MIN", least=0, above=True),
    Opt("gpus", int, None, "Ranks of the collectives. Default: all that are there.", "N", least=2, most=1024),
    Opt("dry_run", bool, False, "Say what would be measured and about how long it takes; needs no GPU, but --gpu."),
)
REPLAY_SERVER = (
    Opt("url", str, None, "Address of the server: http://HOST:PORT, its /v1, or a whole interface.", "URL"),
    Opt("model", str, REQUIRED, "Model as the server calls it; also the predicted one, unless --config names it.", "NAME"),
    Opt("api", str, "completions", "Interface: completions or chat.", "NAME"),
    Opt("prompts", str, None, "Made of token ids or text. Default: ids; text with chat, which takes no ids.", "KIND"),
    Opt("unique_prompts", bool, False, "Do not repeat the trace's common prefixes."),
    Opt("extra_body", str, None, "Keys for every request, as JSON.", "JSON"),
    Opt("timeout", float, 300.0, "Seconds without a byte after which a request has failed.", "S", least=0, above=True),
    Opt("max_failures", int, 20, "Failed requests in a row after which no more are sent.", "N", least=1),
    Opt("num_warmups", int, 1, "Requests sent before the run and not recorded.", "N", least=0),
)
REPLAY_LOAD = (
    *(opt for opt in WORKLOAD if opt.name in ("workload", "time_unit", "map", "request_rate", "burstiness", "concurrency", "seed")),
    Opt("warmup", int, 0, "Requests at the start that statistics leave out.", "N", least=0),
    Opt("num_requests", int, None, "Only the first N of the trace; of --workload, how many. Default: all; 1,024.", "N", least=1),
)
ACCEPTANCE = Opt(
    "acceptance",
    str,
    None,
    "Accepted drafts: a share (0.8) or one by position (0.8,0.6,0.4), tokens of a step (length:2.3), a "
    "file (docs/drafting.md), or a measured model:task. Default: as was measured of the model or its like.",
    "WHAT",
)
REPLAY_PREDICTION = (
    Opt("plan", str, None, "The plan that runs on the server, as `apexsim plan` prints it: TP8, 2×TP4 …", "PLAN"),
    Opt("config", str, None, "The model as apexsim knows it: bundled name, config.json or hub id. Default: --model.", "MODEL"),
    Opt("compare", str, None, "Send nothing: compare with a detailed result file of replay or of vllm bench serve.", "FILE"),
    Opt("gpu", str, None, "GPU, e.g. h100-sxm (see: apexsim gpus), or a .toml file.", "NAME"),
    Opt("gpus", int, None, "GPUs per node.", "N", least=1, most=4096),
    *CLUSTER[2:],
    ACCEPTANCE,
)
REPLAY_OUTPUT = (
    *OUTPUT,
    Opt("plot", str, None, "Draw measured and predicted latencies into a picture (.png, .svg, .pdf); needs matplotlib.", "PATH",
        writes=True),
)  # fmt: skip

SERVED = (
    Opt("host", str, "127.0.0.1", "Address to listen on. Any other than this machine's own opens it to whoever can reach it.", "ADDRESS"),
    Opt("port", int, 8765, "Port; 0 takes a free one.", "N", least=0, most=65535),
    Opt("allow_host", list[str], [], "A further name by which it may be called, that of a proxy in front of it. May be repeated.", "NAME"),
)
SERVED_LIMITS = (
    Opt("timeout", float, 120.0, "Seconds of work that a question gets.", "S", least=1, most=86_400),
    Opt("jobs", int, 1, "Questions worked on at once; further ones wait.", "N", least=1, most=64),
    Opt("max_gpus", int, 512, "GPUs of all nodes that a question may ask about.", "N", least=1, most=1 << 20),
)

Groups = Mapping[str, tuple[Opt, ...]]
QUESTION: Groups = {"Cluster": CLUSTER, "Workload": WORKLOAD, "Engine": ENGINE, "Precision": PRECISION, "Goal": GOAL}
CALIBRATED = {**QUESTION, "Engine": (*ENGINE, ACCEPTANCE, PROFILE)}  # of commands that answer a question
CALIBRATION: Groups = {
    "Runs": (
        Opt("model", str, None, "The model, where the files do not name it or apexsim knows it by another name.", "MODEL"),
        Opt("plan", str, None, "The plan that was served, where the files do not say it: TP8, 2×TP4 …", "PLAN"),
        Opt("where", list[str], [], "Runs of one of many systems: engine, release, model, gpu or formats = (part of) a name. May be "
            "repeated.", "LABEL=VALUE"),
        Opt("length_spread", float, 0.0, "Half width of lengths over their mean, where a file has only means. Default: what the "
            "file tells: 0 where means are whole, else 0.1.", "X", least=0, most=0.99),
        Opt("suggest", str, None, "Read nothing: print the commands that measure the four runs that tell most of this model.", "MODEL"),
    ),
    "Cluster": (
        Opt("gpu", str, None, "GPU that was measured, e.g. h100-sxm (see: apexsim gpus); closed-loop CSVs name their own.", "NAME",
            flags=("--gpu", "--device")),
        Opt("gpus", int, None, "GPUs per node. Default: those of the plan.", "N", least=1, most=4096),
        *CLUSTER[2:],
    ),
    "Engine": (
        Opt("engine", str, None, "Engine that was measured, at a version if known: vllm@0.19.0. Default: the file's, else vllm.", "NAME"),
        *(opt for opt in ENGINE if opt.name not in ("engine", "route", "signal_age", "kv_offload")),
    ),
    "Precision": PRECISION,
    "Profile": (
        Opt("save", str, None, "Keep the result under a name, for --profile.", "NAME"),
        Opt("force", bool, False, "Replace a profile of this name."),
    ),
}  # fmt: skip
FITTING = (
    Opt("engine", str, "vllm", "Rows of this engine: vllm, sglang or trtllm.", "NAME"),
    Opt("leave_out", str, "model", "Label whose groups are left out in turn: model, gpu, version, workload, layout.", "LABEL"),
    Opt("where", str, "", "Only rows with this label, e.g. origin=inferencex.", "LABEL=VALUE"),
    Opt("only", str, "", "Constants to fit, with commas between them; the others stay. Default: all that are not 0.", "NAMES"),
)
POWER_FITTING = (
    Opt("prompt_scale", float, 1.0, "Multiplies the prompt lengths that are assumed.", "X", least=0, above=True),
    Opt("simulated", bool, False, "Judge simulated runs too, not only measured throughput."),
)
SIZED = (
    Opt("find", str, None, "What is asked for: rate, users, gpus, context (longest prompt), or a statistic, the tightest limit that holds: "
        "ttft:p95. Default: gpus without --gpus, else the kind of load that is given, else rate.", "WHAT"),
    Opt("think", float, 0.0, "Pause of a user between an answer and the next request [s].", "S", least=0),
    Opt("share", float, 0.95, "Of the requests that must keep the limits of each request (--goodput).", "X", least=0, most=1, above=True),
    Opt("budget", float, None, "Most rent of all GPUs together [$/h].", "USD", least=0, above=True),
)  # fmt: skip
FOLLOWED = (
    Opt("every", str, "15min", "Length of an interval: 60s, 15min, 1h.", "TIME"),
    Opt("policy", str, "all", "How replicas are asked for: instant (a bound), reactive, predictive, scheduled, fixed; several with commas.",
        "LIST"),
    Opt("start_up_time", str, None, "Until a replica that is asked for serves. Default: 60 s, and its weights at 2 GB/s.", "TIME"),
    Opt("hold", int, 2, "Intervals for which a replica is kept that is no longer needed.", "N", least=0, most=10_000),
    Opt("spare", float, 0.0, "Replicas on top of what is needed, as a share.", "X", least=0, most=10),
    Opt("min_replicas", int, 1, "Replicas at any time.", "N", least=1, most=4096),
    *(opt for opt in SIZED if opt.name == "share"),
)  # fmt: skip
UNFOLLOWED = ("objective", "hypothetical", "workload", "prompt_len", "output_len", "num_requests", "length_spread", "prompt_cv",
              "output_cv", "lengths", "burstiness",
              "concurrency", "seed", "warmup", "power_cap", "pareto", "tune", "sensitivity", "headroom", "stages", "shared_prefix",
              "turns", "turn_gap", "speculate", "acceptance")  # fmt: skip  # of a question: a trace says them, or nothing is ranked by them
UNSIZED = ("objective", "hypothetical", "pareto", "tune", "sensitivity", "headroom", "rate_factor", "stages",
           "turns", "turn_gap")  # fmt: skip  # nothing is ranked by them, or the load is sought
LISTS = (
    "gpu",
    "gpus",
    "nodes",
    "engine",
    "request_rate",
    "concurrency",
    "prompt_len",
    "output_len",
    "num_requests",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "block_size",
    "max_cudagraph_capture_size",
    "kv_dtype",
    "weight_dtype",
    "sampling",
    "route",
    "tp",
    "pp",
    "dp",
    "ep",
)


def _listed(groups: Groups, names: tuple[str, ...] = LISTS) -> Groups:
    """The same options, those of some names open to lists."""
    return {name: tuple(replace(opt, axis=True) if opt.name in names else opt for opt in group) for name, group in groups.items()}


def _without(groups: Groups, names: tuple[str, ...]) -> Groups:
    """The same options but for some."""
    return {name: tuple(opt for opt in group if opt.name not in names) for name, group in groups.items()}


COMMANDS: dict[str, Groups] = {
    "plan": _listed({**CALIBRATED, "Search": (*WIDTHS, *AXES), "Pools": POOLS, "Output": (*REPORT, *EMIT, *FILES, AGAINST, *WORKERS)}),
    "simulate": {"Plan": PLAN, "Pools": POOLS, **CALIBRATED, "Output": (*EMIT, *FILES, PERFETTO, AGAINST)},
    "size": _listed(
        _without({"Question": SIZED, **CALIBRATED, "Search": (*WIDTHS, *AXES), "Output": (*REPORT[:1], *EMIT, *SIZED_FILES)}, UNSIZED),
        ("gpu", "gpus"),
    ),
    "fleet": _without({"Fleet": FOLLOWED, **CALIBRATED, "Search": (*WIDTHS, *AXES), "Output": (*FLEET_FILES, *WORKERS)}, UNFOLLOWED),
    "fit": {
        "Cluster": CLUSTER,
        "Layout": (*WIDTHS, SIZED_PLAN),
        "Users": SIZED_USERS,
        "Engine": SIZED_ENGINE,
        "Precision": STORED,
        "Output": SIZED_OUTPUT,
    },
    "compare": {"Output": LIST_JSON},
    "apex": {"Model": APEX_MODEL, "Cluster": APEX_CLUSTER, "Workload": APEX_WORKLOAD, "Output": APEX_OUTPUT},
    "models": {"Output": (*LIST_JSON, *TABLES)},
    "gpus": {"Output": (*LIST_JSON, *TABLES)},
    "engines": {"Output": (*LIST_JSON, *TABLES)},
    "workloads": {"Output": (*LIST_JSON, *TABLES)},
    "schema": {"Output": (JSON_PAGE,)},
    "validate": {"Prediction": (PROFILE,), "Output": OUTPUT},
    "calibrate": {**CALIBRATION, "Output": OUTPUT},
    "fit-host": {"Fit": FITTING},
    "fit-power": {"Fit": POWER_FITTING},
    "replay": {
        "Server": REPLAY_SERVER,
        "Load": REPLAY_LOAD,
        "Prediction": REPLAY_PREDICTION,
        "Engine": ENGINE,
        "Precision": PRECISION,
        "Output": REPLAY_OUTPUT,
    },
    "web": {"Server": SERVED, "Limits": SERVED_LIMITS},
    "trace describe": {"File": TRACE_FILE, "Output": TRACE_DESCRIBED},
    "trace convert": {"File": TRACE_FILE, "Output": TRACE_OUTPUT},
    "trace synth": {"Requests": TRACE_MADE, "Output": TRACE_OUTPUT},
    "trace filter": {"File": TRACE_FILE, "Limits": TRACE_LIMITS, "Output": TRACE_OUTPUT},
    "trace scale": {"File": TRACE_FILE, "Load": TRACE_LOAD, "Output": TRACE_OUTPUT},
    "trace tokenize": {"Texts": TRACE_TEXTS, "Requests": TRACE_SENT, "Output": TRACE_OUTPUT},
    "device check": {"Output": LIST_JSON},
    "device add": {"Device": KEPT},
    **{f"profile {what}": {"Measurement": PROFILED} for what in ("gemm", "attention", "moe", "comm", "all")},
}


def options_of(command: str) -> list[Opt]:
    """All options of a command."""
    return [opt for group in COMMANDS[command].values() for opt in group]
