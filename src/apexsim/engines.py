"""Serving engines as rows: batching rules, host constants and memory budget by version (floor 1).

A row is a table of numbers read from `data/engines/<name>.toml`, where every constant has its source beside it.
Policies are int codes, because the simulator is compiled:

    admission  0 optimistic, blocks chunk by chunk   1 the whole prompt at admission   2 input + output reserved
               3 chunk by chunk, where the whole prompt fits
    preempt    0 never                               1 recompute
    reuse      0 every prompt is computed in full   1 prefix caching, found at allocation   2 found once computed
    order      0 first come, first served            1 shortest prompt first

Defaults that an engine takes from the GPU or the model length stand as pairs (plain, `large_…`); `settled` decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from itertools import takewhile
from math import inf
from pathlib import Path
from typing import Any

from apexsim.engine_file import (
    CHOICES,
    DEFAULT_ENGINE,
    HERE,
    TABLES,
    Engine,
    among,
    bundled,
    engine_at,
    order,
    read,
    shelf,
    sizes,
    unsound,
    wrong,
)
from apexsim.errors import InputError, nearest
from apexsim.units import GiB

Fused = tuple[tuple[int, float], ...]  # (ranks, largest message [byte]) of all-reduces that are joined with a norm


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """How an engine divides a GPU's memory [byte]; the formulas are in `plan.memory`."""

    sampler_factor: float  # x max_num_seqs x vocabulary x 4 byte: peak of the sampler's dummy run
    sampler_bytes: float
    sampler_experts_bytes: float
    sampler_vision_bytes: float
    forward_factor: float  # x max_num_batched_tokens x (4 hidden + 6 inner / tp) byte
    non_torch_bytes: float  # contexts and communicators: one GPU
    non_torch_nvlink_bytes: float  # 2 to 4 GPUs joined by NVLink
    non_torch_wide_bytes: float  # more than 4 GPUs joined by NVLink
    non_torch_pcie_bytes: float  # several GPUs without NVLink
    non_torch_stage_bytes: float  # pipeline stages
    graph_bytes: float  # per captured graph
    graph_modes: int  # kinds of graph captured: 1, or 2 (piecewise and full)
    graphs_in_budget: int  # 1: the graphs are taken off the KV cache, 0: they come on top of the fraction
    kv_pool: str  # "full": every layer holds the whole context; "groups": pools per window
    tokens_line: str  # what "GPU KV cache size" means: "blocks" x block size, or "concurrency" x max_model_len
    latent_pad: int  # latent cache rows padded to this many elements; 0 = not
    mxfp4_pad_hidden: int  # the kernels of MXFP4 experts pad the model's width to a multiple of this …
    mxfp4_pad_inner: int  # … and the experts' inner width on a device to one of this
    shared_experts_whole: int  # 1: shared experts stand on every device while the routed ones are expert parallel
    dispatch_bytes: float  # buffers of expert-parallel dispatch, taken while the weights are loaded
    state_blocks: int  # blocks per request and group of recurrent layers, beside one per draft token
    state_share: float  # > 0: recurrent state has a pool of its own, this x the KV pool's bytes
    state_needs_blocks: int  # 1: the engine will not start with more sequences than blocks where layers are recurrent
    refuses: int  # 1: the engine will not start unless the cache holds one request of max_model_len
    kv_low_bytes: float  # independent logs lay from here …
    kv_high_bytes: float  # … to here around the KV memory predicted
    budget: str  # what the memory fraction is a fraction of: "total", "static" or "free" (see `plan.memory`)


@dataclass(frozen=True, slots=True)
class Here:
    """Constants that hold on some GPUs: those whose name holds `gpus`, with `least` to `below` bytes of memory."""

    gpus: str
    least: float
    below: float
    constants: tuple[tuple[str, Any], ...]

    def holds(self, gpu_name: str, gpu_memory: float) -> bool:
        """Whether a GPU is one of them."""
        return self.gpus in gpu_name.lower() and self.least <= gpu_memory < self.below


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine version: its scheduler's rules, host constants [s] and memory rules."""

    name: str
    version: str
    server: Engine = field(compare=False, repr=False)  # who serves it: itself, or of a policy the engine whose words and kernels it has
    # rules
    mix: int  # 1: prompts and decodes share a step; 0: a step is either, prompts first
    chunk: int  # 1: a prompt is cut to fit the budget that is left
    max_num_batched_tokens: int
    large_max_num_batched_tokens: int
    max_num_seqs: int
    large_max_num_seqs: int
    block_size: int
    watermark: float  # share of blocks kept free at admission
    admission: int
    preempt: int
    order: int
    lag: int  # 1: a request is seen one step after the one that runs at its arrival; 2: yet one step later (steps formed ahead)
    pad: tuple[int, ...]  # captured CUDA-graph batch sizes, ascending; () = eager
    capture_per_sequence: int  # captured up to this x max_num_seqs
    chunked_budget: int  # the default budget once chunking is switched on
    length_budget: int  # without chunking the budget must hold the longest request (1; 2: the user's, which does not grow) or prompt (3; 4)
    large_gpu_bytes: int  # the `large_…` defaults apply from this memory on
    large_gpu_excludes: str  # … unless the GPU's name holds this
    # host
    gap_s: float  # per small un-tabulated kernel
    prompt_add_launch_s: float  # added per launch unit to a step that holds a prompt
    prompt_floor_launch_s: float  # floor per launch unit of such a step
    bare_launch_s: float  # … of a decode step larger than every captured graph, at least that of prompts
    eager_launch_s: float  # … of every step where nothing is captured or compiled, likewise
    prompt_factor: float  # x tabulated kernels of such a step
    tokenise_s: float  # per prompt token, one front-end process, serial
    request_s: float  # per request, serial
    step_s: float  # per step, where steps are not formed ahead …
    sequence_s: float  # … and per sequence in the batch
    # memory
    memory_fraction: float
    memory: MemoryRules
    # rules that most engines lack
    reuse: int = 0  # 1: prompts find blocks that others have begun to compute, 2: … have computed
    rest_first: int = 0  # 1: of the blocks given back those that are not full are taken first
    draft_tokens: int = 0  # proposed by draft layers each step: memory for them is set aside
    draft_slots: int = 1  # slots that a decoding sequence has for its drafts, in times of these
    draft_graph_tokens: int = 0  # 1: captured sizes count tokens, 0: sequences
    draft_sequence_s: float = 0.0  # that the host takes for the drafts of a sequence in each step, beside the GPU
    draft_launch_s: float = 0.0  # per launch unit of the draft layer's first pass, where no graph holds it
    profile_tokens: int = 0  # tokens of the memory profile where the budget is no bound; 0 = the budget
    prefill_limit: int = 0  # tokens of whole prompts in one prefill batch; 0 = the budget
    poll_interval: int = 1  # decode steps between two looks for new requests
    batch_wait_iters: int = 0  # prompts wait at most this many steps …
    batch_wait_ratio: float = 0.0  # … for this share of the budget
    balance_wait: int = 0  # attention data parallel: steps to wait for a prompt on each lane
    fused_all_reduce: str = ""  # GPU architectures on which all-reduces add residual and norm, one kernel for both …
    fused_sizes: str = ""  # … for messages of up to so many MiB: "architecture ranks:MiB …", one after the other
    experts_as: str = ""  # "architecture format source": whole experts of a format run as another source's tables hold them
    joined_norms: int = 0  # all-reduces of a layer that do the norm behind them, one kernel for both; where the plan allows it
    norm_families: str = ""  # models for which that is the default, with both all-reduces of a layer
    joined_inputs: int = 1  # input products of linear attention: 0 as the checkpoint holds them, 1 joined, 2 gates on a second stream too
    seqs_in_budget: int = 0  # 1: the engine will not start with more sequences than its token budget
    prompt_graphs: int = 1  # what graphs hold of a step with prompts: DECODES_ONLY, IN_PARTS or WHOLE, see there
    prompt_eager_launch_s: float = 0.0  # floor per launch unit of a prompt step of which no graph holds even parts
    sampling: str = "greedy"  # "greedy", "top-p" (with or without top-k) or "penalties" (of repetition, beside top-p)
    logit_sort_bytes: int = 0  # that choosing among logits by top-k and top-p moves, per entry of the vocabulary and sequence
    logit_penalty_bytes: int = 0  # … and penalties
    prompt_full_tokens: int = 1  # prompt tokens of a lane from which a step has the whole addition; with fewer a share of it
    prompt_decode_share: float = 0.0  # … and decode attention beside them takes this much longer
    half_batches: int = 0  # 1: a step is two half batches, of which one computes while the other's tokens travel to their experts
    capture: int = 0  # the largest size that the user wants captured, 0: the engine's own
    spare: tuple[int, ...] = ()  # of an eager row: the sizes that graphs would have been captured for
    here: tuple[Here, ...] = ()  # constants of some GPUs, until `settled` knows the GPU
    # the row itself
    released: str = ""  # day of `version`, "" where it is no release
    asked: str = ""  # version that the user named, where it lies between two rows and has the earlier one's rules

    @property
    def spoken(self) -> str:
        """The version whose words are used: the one that the user named."""
        return self.asked or self.version

    @property
    def label(self) -> str:
        """Name and version: vllm 0.25.0, or vllm 0.23.1: rules of 0.22.0."""
        return f"{self.name} {self.asked}: rules of {self.version}" if self.asked else f"{self.name} {self.version}"

    @property
    def dated(self) -> str:
        """Name, version and the day of the rules: vllm 0.25.0 (released 2026-07-11)."""
        return f"{self.label} (released {self.released})" if self.released else self.label

    @property
    def has_server(self) -> bool:
        """Whether it can be started; policies of papers only batch."""
        return self.server.name == self.name and bool(self.server.program)

    def fused(self, arch: str) -> Fused:
        """Up to which size all-reduces on GPUs of an architecture are joined with the norm that follows."""
        if arch not in self.fused_all_reduce.split():
            return ()
        _, _, sizes = f" {self.fused_sizes} ".partition(f" {arch} ")
        told = takewhile(lambda word: ":" in word, sizes.split())
        return tuple((int(ranks), float(size) * GiB / 1024) for ranks, _, size in (word.partition(":") for word in told))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batches that a decode step is priced at.  An eager one is not padded, but its kernels are not joined either, which nobody
        has measured: it is never taken to be shorter than the graph that would have held it."""
        return self.pad or self.spare

    @property
    def logit_bytes(self) -> int:
        """Bytes per entry of the vocabulary and sequence that sampling moves beyond what greedy sampling does."""
        sorts, punishes = self.sampling != "greedy", self.sampling == "penalties"
        return sorts * self.logit_sort_bytes + punishes * self.logit_penalty_bytes

    @property
    def max_capture(self) -> int:
        """Largest captured batch; 0 = eager."""
        return self.pad[-1] if self.pad else 0


# What graphs hold of steps with prompt tokens: nothing; their parts between attention, up to the largest captured size; whole steps, where
# model and plan allow it (`plan.limits.prompts_captured`).
DECODES_ONLY, IN_PARTS, WHOLE = range(3)

_MEMORY = {f.name: f for f in fields(MemoryRules)}
_ROW = {f.name: f for f in fields(EngineRow) if f.name not in ("name", "version", "server", "memory", "spare", "here", "released", "asked")}
_CONSTANTS = {**_ROW, **_MEMORY}


def drafting(row: EngineRow, width: int) -> EngineRow:
    """A row whose decode steps hold `width` tokens of a sequence, with its captured sizes in tokens: those of so many sequences each, or
    where they count tokens already, rounded up to whole sequences."""

    def tokens(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({-(-n // width) * width if row.draft_graph_tokens else n * width for n in sizes}))

    return row if width == 1 else replace(row, pad=tokens(row.pad), spare=tokens(row.spare))


def engine_names() -> tuple[str, ...]:
    """The engines with rows, sorted."""
    return tuple(shelf())


def servers() -> tuple[str, ...]:
    """The engines that can be started, the usual one first."""
    return _servers(tuple(shelf().items()))


@cache
def _servers(known: tuple[tuple[str, Path], ...]) -> tuple[str, ...]:
    able = [name for name, path in known if "engine" not in read(path) and "server" in read(path)]
    return tuple(sorted(able, key=lambda name: (name != DEFAULT_ENGINE, name)))


def engine_facts(name: str) -> Engine:
    """Who serves the rows of an engine or policy; raises InputError for a policy of an unknown engine."""
    data = _file(name)
    served = data.get("engine", name)
    if "engine" in data:
        among(served, [other for other in engine_names() if "engine" not in _file(other)], "engine", f"{shelf()[name]} engine")
    return engine_at(served, shelf()[served])


def server_named(text: str) -> str:
    """The engine with a server that a text names, or is another spelling of; "" where there is none."""
    name = engine_aliases().get(text, text)
    return name if name in servers() else ""


def kernels_of(source: str) -> Engine:
    """The engine whose own kernels a source of kernel times holds."""
    return next(engine for engine in map(engine_facts, filter(bundled().get, servers())) if engine.kernels == source)


def engine_versions(name: str) -> tuple[str, ...]:
    """Versions of one engine that have a row, oldest first."""
    return tuple(row["version"] for row in _file(name)["row"])


def newest_version(name: str) -> str:
    """The last version that an engine's newest row is known to hold for."""
    return str(_file(name).get("through", engine_versions(name)[-1]))


def load_engine(spec: str = DEFAULT_ENGINE) -> EngineRow:
    """The row of "name" (newest), or of "name@version": between two rows the earlier one, beyond both ends an InputError."""
    name, sign, version = _named(spec)
    if not sign:
        return _row(name, engine_versions(name)[-1])
    wanted, first, last = order(version, spec), engine_versions(name)[0], newest_version(name)
    if not order(first, spec) <= wanted <= order(last, spec):
        beyond = "older" if wanted < order(first, spec) else "newer"
        ends = f"{name} is known from {first} to {last}" if first != last else f"{name} is known as {first}"
        raise InputError(f"{name} {version} is {beyond} than all that are known", "--engine", f"{ends} (see: apexsim engines {name})")
    return closest(spec)


def closest(spec: str) -> EngineRow:
    """The newest row that is not newer than "name@version", else the oldest: for measured systems of any version."""
    name, _, version = _named(spec)
    rows = engine_versions(name)
    fitting = [v for v in rows if not version or order(v, spec) <= order(version, spec)]
    row = _row(name, fitting[-1] if fitting else rows[0])
    return replace(row, asked=version.lstrip("v")) if version and order(row.version, spec) != order(version, spec) else row


def _named(spec: str) -> tuple[str, str, str]:
    """Engine, "@" if there is one, and version of a spelling."""
    name, sign, version = (part.strip() for part in spec.strip().lower().partition("@"))
    aliases = engine_aliases()
    name = aliases.get(name, name)
    if name not in engine_names():
        raise InputError(f"unknown engine '{spec}'", "--engine", nearest(name, [*engine_names(), *aliases]))
    return name, sign, version


def flags_of(engine: str) -> dict[str, str]:
    """The words of an engine's server for its settings: {"memory_fraction": "--mem-fraction-static", …}."""
    return dict(_file(engine).get("flags", {}) or _file(_file(engine).get("engine", engine)).get("flags", {}))


def our_flag(setting: str) -> str:
    """Our own word for a setting, where an engine's is not known."""
    named = {"memory_fraction": "gpu_memory_utilization", "capture": "max_cudagraph_capture_size", "pad": "enforce_eager"}
    return "--" + named.get(setting, setting).replace("_", "-")


def changes(name: str, version: str) -> list[tuple[str, Any, Any]]:
    """What a row changes against the one before it: (constant, before, now), with what it changes on some GPUs only; nothing for the
    first."""
    rows = engine_versions(name)
    at = rows.index(version)
    last = rows[max(at - 1, 0)]
    before, now = _constants(name, last), _constants(name, version)
    some, all_ = _by_gpu(name, last), _by_gpu(name, version)
    found = [(key, before.get(key), value) for key, value in now.items() if before.get(key) != value]
    usual = before | {key.removeprefix("large_"): value for key, value in before.items() if key.startswith("large_")}
    return found + [(key, some.get(key, usual.get(key.partition(" ")[0])), value) for key, value in all_.items() if some.get(key) != value]


def _by_gpu(name: str, version: str) -> dict[str, Any]:
    """Constants that hold on some GPUs, by "constant on GPUs", as the file writes them."""
    found: dict[str, Any] = {}
    for table in _file(name).get("here", ()):
        if not _in_force(table, version):
            continue
        ends = [f"{words} {table[key]} GiB" for words, key in (("from", "least_gib"), ("below", "below_gib")) if key in table]
        where = " ".join(filter(None, (str(table.get("gpus", "")), *ends)))
        found |= {f"{key} ({where})": value for key, (value, *_) in _told(table)}
    return found


def _told(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The constants of such a table, each pair of `large_…` defaults once."""
    return [(key, value) for key, value in table.items() if isinstance(value, list) and not key.startswith("large_")]


def _in_force(table: Mapping[str, Any], version: str) -> bool:
    """Whether constants by GPU hold for a version."""
    since, until = table.get("since", "0"), table.get("until")
    return order(since) <= order(version) and not (until and order(until) <= order(version))


def differences(before: EngineRow, now: EngineRow) -> list[tuple[str, Any, Any]]:
    """What differs between two rows as they serve: (constant, before, now), each pair of `large_…` defaults once."""
    found = [(key, getattr(before, key), getattr(now, key)) for key in _ROW if not key.startswith("large_")]
    found += [(key, getattr(before.memory, key), getattr(now.memory, key)) for key in _MEMORY]
    return [each for each in found if each[1] != each[2]]


def facts(name: str) -> dict[str, Any]:
    """What an engine's file says of the engine itself: about, engine, through, sources."""
    return {"engine": name} | {key: value for key, value in _file(name).items() if key != "row"}


def fitted(name: str, file: str) -> list[tuple[str, str, float, str]]:
    """Constants that rows of an engine have from `apexsim fit-host FILE`: (version, constant, value, source), oldest row first."""
    ours = {key for key, text in _file(name).get("sources", {}).items() if text.startswith(f"apexsim fit-host validation/{file} ")}
    return [
        (row["version"], constant, value, source)
        for row in _file(name)["row"]
        for constant, (value, source) in row.get("host", {}).items()
        if source in ours and value > 0
    ]


def engine_aliases() -> dict[str, str]:
    """Other spellings of engines: {"trtllm": "tensorrt-llm", …}."""
    return dict(_aliases(tuple(shelf().items())))


@cache
def _aliases(known: tuple[tuple[str, Path], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in sorted(known, key=lambda item: item[0] not in bundled()):
        for alias in read(path).get("aliases", ()):
            if alias in found or alias in dict(known):
                raise InputError(f"there is an engine '{alias}' already", f"{path} aliases", "choose another alias")
            found[alias] = name
    return found


def _file(name: str) -> dict[str, Any]:
    return read(shelf()[name])


def _constants(name: str, version: str, after: tuple[str, ...] = ()) -> dict[str, Any]:
    """All constants of a row, those it inherits included; `after`: the rows that inherit from it."""
    row = next(r for r in _file(name)["row"] if r["version"] == version)
    start: dict[str, Any] = {}
    if "inherits" in row:
        where, chain = f"{shelf()[name]} [[row]] {version}", (*after, f"{name}@{version}")
        parent, old = _parent(name, row["inherits"], where)
        if f"{parent}@{old}" in chain:
            raise InputError(f"inherits from itself: {' -> '.join((*chain, f'{parent}@{old}'))}", where)
        start = dict(_constants(parent, old, chain))
    for table in TABLES:
        start.update({key: value for key, (value, _source) in row.get(table, {}).items()})
    return start


def _parent(name: str, inherits: str, where: str) -> tuple[str, str]:
    """Engine and version of the row that "0.6.0" or "vllm@0.19.0" names."""
    other, at, version = inherits.rpartition("@")
    parent = other if at else name
    among(parent, engine_names(), "engine", where)
    among(version, engine_versions(parent), f"version of {parent}", where)
    return parent, version


def _row(name: str, version: str) -> EngineRow:
    return _made(name, version, shelf()[name])


@cache
def _made(name: str, version: str, path: Path) -> EngineRow:
    constants, where = _constants(name, version), f"{path} [[row]] {version}"
    for key in constants:
        among(key, _CONSTANTS, "constant", where)
    for key, constant in _CONSTANTS.items():
        if key not in constants and constant.default is MISSING:
            raise InputError(f"constant '{key}' is missing", where, 'inherit what is alike: inherits = "vllm@0.25.0"')
        told = wrong(key, constants[key], str(constant.type)) if key in constants else ""
        if told:
            raise InputError(f"constant '{key}': {told}", where)
    constants["pad"] = sizes(constants["pad"])
    memory = MemoryRules(**{k: v for k, v in constants.items() if k in _MEMORY})
    rest = {k: v for k, v in constants.items() if k in _ROW}
    released = next(r for r in _file(name)["row"] if r["version"] == version).get("released", "")
    here = tuple(_here(name, version))
    return EngineRow(name=name, version=version, server=engine_facts(name), memory=memory, released=released, here=here, **rest)


def _here(name: str, version: str) -> Iterator[Here]:
    """What a version has on some GPUs only."""
    where = f"{shelf()[name]} [[here]]"
    for table in _file(name).get("here", ()):
        if _in_force(table, version):
            constants = {key: value[0] for key, value in table.items() if key not in HERE}
            for key, value in constants.items():
                among(key, _ROW, "constant", where)
                if told := wrong(key, value, str(_ROW[key].type)):
                    raise InputError(f"constant '{key}': {told}", where)
            if "pad" in constants:
                constants["pad"] = sizes(constants["pad"])
            least, below = (GiB * table.get(key, end) for key, end in (("least_gib", 0.0), ("below_gib", inf)))
            yield Here(table.get("gpus", ""), least, below, tuple(constants.items()))


def override(row: EngineRow, **settings: Any) -> EngineRow:
    """The row with the user's settings; `None` keeps a default, a bad value raises InputError.

    `chunk=1` on an engine that has chunked prefill as an option also mixes decodes and chunks under its chunked budget.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    for key, value in given.items():
        _check(row, key, value)
    changes: dict[str, Any] = dict(given)
    if given.get("chunk") == 1 and not row.chunk:
        changes = {"mix": 1, "max_num_batched_tokens": row.chunked_budget} | changes
    for key in ("max_num_batched_tokens", "max_num_seqs"):
        if key in changes:
            changes["large_" + key] = changes[key]
    if "capture" in given:
        changes |= _capturing(row, given)
    if "pad" in changes:
        changes["pad"] = tuple(changes["pad"])
        changes["spare"] = () if changes["pad"] else row.sizes
    if "max_num_batched_tokens" in given and row.length_budget in (HOLDS_LENGTH, HOLDS_PROMPT):
        changes["length_budget"] = row.length_budget + 1
    return replace(row, here=tuple(_left(one, changes) for one in row.here), **changes)


def _capturing(row: EngineRow, given: dict[str, Any]) -> dict[str, Any]:
    """The sizes that are captured up to the one that the user wants: those of the row, and beyond as far apart as its last ones.

    Where graphs go beyond the sequences anyway (vLLM: `capture_per_sequence` above 1), so does what is asked for, however few they are;
    the others capture no batch that they never have.
    """
    most, sizes = int(given["capture"]), row.sizes
    if "pad" in given and not given["pad"]:
        raise InputError("without graphs there is no largest one", our_flag("capture"), f"drop it or {our_flag('pad')}")
    if not sizes:
        raise InputError(f"{row.label} captures no graphs", our_flag("capture"), "drop it")
    apart = sizes[-1] - sizes[-2] if len(sizes) > 1 else sizes[-1]
    pad = (*(size for size in sizes if size <= most), *range(sizes[-1] + apart, most + 1, apart)) or (most,)
    return {"pad": pad} | ({"capture_per_sequence": most} if row.capture_per_sequence > 1 else {})


def _left(one: Here, changes: dict[str, Any]) -> Here:
    """What holds on some GPUs beside the user's settings; where those ask for no graphs, the sizes of that GPU are the spare ones."""
    eager = "pad" in changes and not changes["pad"]
    named = ((("spare" if eager and key == "pad" else key), value) for key, value in one.constants)
    return replace(one, constants=tuple((key, value) for key, value in named if key == "spare" or key not in changes))


SWITCHES = {  # what engines call a switch -> what it is here
    "prefix_caching": "{'reuse': 0} computes every prompt in full",
    "radix_cache": "{'reuse': 0} computes every prompt in full",
    "block_reuse": "{'reuse': 0} computes every prompt in full",
    "chunked_prefill": "{'chunk': 1} cuts prompts, {'chunk': 0} does not",
    "eager": "{'pad': ()} runs without CUDA graphs",
    "cuda_graph": "{'pad': ()} runs without CUDA graphs",
}


def _check(row: EngineRow, key: str, value: Any) -> None:
    """Raise InputError unless `value` is sensible for `key`."""
    flag = our_flag(key)
    if key not in _ROW:
        meant = next((hint for word, hint in SWITCHES.items() if word in key), "")
        raise InputError(f"engine {row.label} has no setting '{key}'", flag, meant or nearest(key, _ROW))
    told = unsound(key, value)
    if told and key in CHOICES:
        raise InputError(told, flag, nearest(str(value), CHOICES[key]))
    if told:
        raise InputError(told, flag, "0.9 means 90 % of the GPU" if key == "memory_fraction" else "")


HOLDS_LENGTH, HOLDS_PROMPT = 1, 3  # codes of `length_budget`; one more: the user's own budget
BUDGET_STEP = 1024  # tokens to which a budget that grows with the prompts is rounded up


def settled(row: EngineRow, gpu_memory: float, gpu_name: str, max_model_len: int, prompt: int = 0) -> EngineRow:
    """The row with the defaults that depend on GPU, model length and the longest prompt (0: not known) decided.

    Constants that hold on some GPUs only are taken first.  Large GPUs (`large_gpu_bytes` and up, e.g. H100, H200; not A100) get
    larger budgets.  Where prompts are not chunked, the budget grows to hold what the engine wants it to (`length_budget`), or the user's
    own smaller one is refused.  Sequences stay within the budget where the engine wants that.
    """
    found = {key: value for one in row.here if one.holds(gpu_name, gpu_memory) for key, value in one.constants}
    row = replace(row, here=(), **found)
    large = gpu_memory >= row.large_gpu_bytes and not (row.large_gpu_excludes and row.large_gpu_excludes in gpu_name.lower())
    tokens = row.large_max_num_batched_tokens if large else row.max_num_batched_tokens
    sequences = row.large_max_num_seqs if large else row.max_num_seqs
    if not row.chunk and row.length_budget:
        tokens = _holding(row.length_budget, tokens, max_model_len, prompt)
    if row.seqs_in_budget:
        sequences = min(sequences, tokens)
    return replace(
        captured(row, sequences),
        max_num_batched_tokens=tokens,
        large_max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        large_max_num_seqs=sequences,
    )


def _holding(rule: int, tokens: int, length: int, prompt: int) -> int:
    """The budget that holds what prompts that are not chunked want of it; raises InputError where the user's own does not."""
    whole = rule < HOLDS_PROMPT
    wanted, what = (length, "request") if whole else (prompt, "prompt")
    if tokens >= wanted:
        return tokens
    if rule not in (HOLDS_LENGTH, HOLDS_PROMPT):
        hint = f"raise it, {'lower --max-model-len' if whole else 'shorten the prompts'} or enable chunked prefill"
        raise InputError(
            f"{tokens} is less than the longest {what} of {wanted} tokens and prompts are not chunked",
            our_flag("max_num_batched_tokens"),
            hint,
        )
    return wanted if whole else -(-wanted // BUDGET_STEP) * BUDGET_STEP


def captured(row: EngineRow, sequences: int) -> EngineRow:
    """A row with its capture sizes for that many sequences: up to `capture_per_sequence` x them, rounded up to a size."""
    top = next((size for size in row.sizes if size >= row.capture_per_sequence * sequences), max(row.sizes, default=0))
    pad, spare = (tuple(size for size in sizes if size <= top) for sizes in (row.pad, row.spare))
    return replace(row, pad=pad, spare=spare)
