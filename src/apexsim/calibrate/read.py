"""Result files of benchmark programs as runs: one row of READERS for each (floor 5).

| program | identified by | note |
|---|---|---|
| SGLang's bench_serving | mean_e2e_latency_ms | one run a line; `server_info` names the plan and the cache |
| vLLM's bench serve, apexsim replay | mean_ttft_ms, or per-request lists | with --save-detailed: its own requests and arrivals |
| GuideLLM | benchmarks | its TPOT holds the TTFT, so its ITL (one mean per request) is taken as TPOT; E2E in seconds |
| aiperf | time_to_first_token, request_latency | calls TPOT `inter_token_latency` |
| aiperf, per request | metadata, metrics | all lines of a file are one run |
| InferenceX | hw, conc, isl, osl | seconds; lengths as its dataset draws them |

What cannot be used is a `Passed` with its reason; a file of which nothing is known raises InputError.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexsim.calibrate.cells import Bad, Fields, lengths, loaded, stats_of_all
from apexsim.calibrate.points import STATS, Key
from apexsim.calibrate.server import DRAFTS, ServerSaid, flags, of_image, of_sglang, of_vllm
from apexsim.errors import InputError
from apexsim.files import DOCUMENT, loads, opened, read_text
from apexsim.plan.widths import Widths
from apexsim.replay.compare import sent_workload
from apexsim.replay.record import PREDICTED, run_of
from apexsim.replay.record import measured as replayed
from apexsim.workload.synth import inferencex_population
from apexsim.workload.trace import Workload

MOST_REQUESTS = 100_000  # of a run, which is simulated eight times
Docs = Sequence[tuple[str, Mapping[str, Any]]]  # where each stands, and what it holds


@dataclass(frozen=True, slots=True)
class FileRun:
    """A measured run.  about: what the file says of "model", "engine", "gpu", "date"; widths: of its plan, where it says them; kv_tokens:
    what its server's cache holds, 0 where it does not say; failed: requests; server: what else it says of how it was served."""

    where: str
    tool: str
    workload: Workload
    measured: Mapping[Key, float]
    about: Mapping[str, str] = field(default_factory=dict)
    widths: Widths | None = None
    kv_tokens: float = 0.0
    failed: int = 0
    server: ServerSaid = field(default_factory=ServerSaid)


@dataclass(frozen=True, slots=True)
class Passed:
    """A run that is not used, and why."""

    where: str
    reason: str


# ---- flat files of vLLM and SGLang ---------------------------------------------------------------------------------------

FLAT = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}
SGLANG = FLAT | {"e2e": "e2e_latency"}
TABULAR = ("mean",)  # statistics of ITL that mean the same here: over all gaps


def _flat(doc: Fields, stems: Mapping[str, str]) -> dict[Key, float]:
    """Latencies [s], output throughput and power of a flat file."""
    found = {}
    for metric, stem in stems.items():
        for stat in TABULAR if metric == "itl" else STATS:
            found[(metric, stat)] = doc.number(f"{stat}_{stem}_ms") / 1e3
    found[("throughput", "mean")] = doc.number("output_throughput")
    found[("power", "mean")] = _watts(doc)
    return found


def _watts(doc: Fields) -> float:
    """Mean power of a GPU [W]: vLLM tells that of all whose counters it read together, and which those were."""
    return doc.number("gpu_avg_power_w", "avg_power_w") / max(1, len(doc.items("energy_gpu_ids")))


def _lost(doc: Fields) -> int:
    """Requests that failed: as counted, else those that were sent and not completed."""
    sent, done = doc.number("num_prompts", absent=0.0), doc.number("completed", absent=1e12)
    return int(doc.number("failed", absent=max(0.0, sent - done)))


def _flat_work(doc: Fields, spread: float) -> Workload:
    """The requests of a flat file: as listed, else of its mean lengths; spread: half their width over the mean, 0: as the mean tells."""
    good = [i for i, error in enumerate(doc.items("errors")) if error]
    size = int(doc.number("completed", "num_prompts", least=1, most=MOST_REQUESTS))
    prompt, output = (_listed(doc, name, good) for name in ("input_lens", "output_lens"))
    if prompt is None or output is None:
        means = [doc.number(f"total_{kind}_tokens", least=1) / size for kind in ("input", "output")]
        prompt, output = (lengths(mean, size, spread, at) for at, mean in enumerate(means))
    return loaded(
        prompt, output, doc.number("max_concurrency"), doc.number("request_rate", endless=True), doc.number("burstiness", absent=1.0)
    )


def _listed(doc: Fields, name: str, bad: list[int]) -> np.ndarray | None:
    """Lengths by request, without those that failed; None where the file has none."""
    values = doc.items(name)
    kept = [value for i, value in enumerate(values) if i not in set(bad)]
    if not kept or not all(isinstance(value, int) and 0 < value < 1 << 30 for value in kept):
        return None
    return np.array(kept, np.int64)


def _vllm(docs: Docs, path: str, spread: float) -> Iterator[FileRun]:
    for where, value in docs:
        doc = Fields(value)
        about = {"model": doc.text("model_id"), "date": doc.text("date"), "gpu": ""}
        said, widths = (
            of_vllm(doc),
            _widths(
                Fields(flags(doc.value)), ("tensor_parallel_size", "tp"), ("pipeline_parallel_size", "pp"), ("data_parallel_size", "dp")
            ),
        )
        if doc.number("spec_decode_acceptance_length", absent=0.0) > 0:
            raise Bad(DRAFTS)
        if doc.items("ttfts") and doc.items("itls"):
            run = run_of(value, where)
            work, _ = sent_workload(run)
            found = replayed(run)
            stats: dict[Key, float] = {("throughput", "mean"): found.output_throughput, ("itl", "mean"): found.itl.mean}
            for metric, name in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el")):
                stats |= {(metric, stat): getattr(found, name).value(stat) for stat in STATS}
            stats[("power", "mean")] = _watts(doc)
            yield FileRun(where, "detailed run", replace(work, warmup=0), stats, about, widths, failed=found.failed, server=said)
        else:
            if "mean_ttft_ms" not in value:
                raise Bad("its per-request lists are empty")
            if doc.value.get("ramp_up_strategy"):
                raise Bad("its rate ramps up, and only --save-detailed tells when requests were sent")
            work = _flat_work(doc, spread)
            yield FileRun(where, "vllm bench serve", work, _flat(doc, FLAT), about, widths, failed=_lost(doc), server=said)


def _sglang(docs: Docs, path: str, spread: float) -> Iterator[FileRun]:
    for where, value in docs:
        doc, info = Fields(value), Fields(value).inner("server_info")
        about = {"model": info.text("model_path"), "gpu": "", "date": doc.text("date")}
        ratio = doc.number("random_range_ratio", absent=1.0) if doc.text("dataset_name").startswith("random") else 1.0
        if "prefix" in doc.text("dataset_name") and not info.value.get("disable_radix_cache"):
            raise Bad("its prompts share prefixes, of which the file does not say how many were in the cache")
        failed = max(0.0, len(doc.items("errors")) - doc.number("completed", absent=1e12))
        if doc.number("accept_length", absent=0.0) > 1.0:
            raise Bad(DRAFTS)
        lanes = int(info.number("dp_size", "dp", absent=1.0, least=1, most=4096)) if info.value.get("enable_dp_attention") else 1
        tokens = info.number("max_total_num_tokens", absent=0.0)
        yield FileRun(
            where,
            "sglang bench_serving",
            _flat_work(doc, (1.0 - ratio) / (1.0 + ratio) if ratio < 1.0 else spread),
            _flat(doc, SGLANG),
            about,
            _sglang_widths(info),
            tokens,
            int(failed),
            of_sglang(info, lanes),
        )


def _widths(doc: Fields, *names: tuple[str, ...]) -> Widths | None:
    """The widths that a file names, 0 where it does not; None where it names none."""
    tp, pp, dp = (int(doc.number(*each, absent=0.0, most=4096)) for each in names)
    return Widths(tp, pp, dp, bool(doc.value.get("enable_expert_parallel"))) if tp or pp or dp else None


def _sglang_widths(info: Fields) -> Widths | None:
    """SGLang counts lanes of attention inside tp, other copies beside it."""
    tp, pp, dp, ep = (
        int(info.number(name, short, absent=1.0, least=1, most=4096))
        for name, short in (("tp_size", "tp"), ("pp_size", "pp"), ("dp_size", "dp"), ("ep_size", "ep"))
    )
    if not info.value:
        return None
    return layout(tp, pp, dp if info.value.get("enable_dp_attention") else 1, ep, 1 if info.value.get("enable_dp_attention") else dp)


def layout(tp: int, pp: int, lanes: int, ep: int, replicas: int = 1) -> Widths:
    """A plan over tp GPUs a stage with lanes of attention and ep-fold experts inside; raises Bad where they do not divide."""
    if tp % lanes or tp % ep:
        raise Bad(f"its widths do not fit together (tp {tp}, attention lanes {lanes}, ep {ep})")
    if lanes == 1 and ep == 1:
        return Widths(plan=f"{replicas}×PP{pp}×TP{tp}" if pp > 1 else f"{replicas}×TP{tp}")
    ffn = f"TP{tp // ep}EP{ep}" if 1 < ep < tp else f"EP{ep}" if ep > 1 else f"TP{tp}"
    attention = f"DP{lanes}TP{tp // lanes}" if 1 < lanes < tp else f"DP{lanes}" if lanes > 1 else f"TP{tp}"
    return Widths(plan=f"{replicas}×" + (f"PP{pp}×" if pp > 1 else "") + f"{attention}/{ffn}")


# ---- GuideLLM ------------------------------------------------------------------------------------------------------------

GUIDE = {"ttft": ("time_to_first_token_ms", 1e3), "tpot": ("inter_token_latency_ms", 1e3), "e2e": ("request_latency", 1.0)}


def _guidellm(docs: Docs, path: str, spread: float) -> Iterator[FileRun | Passed]:
    for where, value in docs:
        for at, one in enumerate(value["benchmarks"] if isinstance(value["benchmarks"], list) else []):
            place = f"{where} benchmark {at + 1}"
            try:
                yield _benchmark(Fields(one), Fields(value), place, spread)
            except Bad as bad:
                yield Passed(place, str(bad))


def _benchmark(one: Fields, whole: Fields, where: str, spread: float) -> FileRun:
    metrics = one.inner("metrics")
    found: dict[Key, float] = {}
    for metric, (name, per) in GUIDE.items():
        told = metrics.inner(name).inner("successful")
        shares = told.inner("percentiles")
        for stat in STATS:
            found[(metric, stat)] = (told if stat in ("mean", "median") else shares).number(stat) / per
    found[("throughput", "mean")] = metrics.inner("output_tokens_per_second").inner("successful").number("mean")
    totals = metrics.inner("request_totals")
    counts = [metrics.inner(f"{kind}_token_count").inner("successful") for kind in ("prompt", "output")]
    means, sds = [count.number("mean", least=1) for count in counts], [count.number("std_dev") for count in counts]
    _without_ttft(found, metrics, means[1])
    size = int(totals.number("successful", least=1, most=MOST_REQUESTS))
    prompt, output = (lengths(mean, size, spread, at, sd) for at, (mean, sd) in enumerate(zip(means, sds)))
    listed = _each_request(one, size)
    if listed is not None:
        prompt, output = listed[1:].astype(np.int64)
    strategy = one.inner("config").inner("strategy") if one.inner("config").inner("strategy").value else one.inner("args").inner("strategy")
    kind = strategy.text("type_")
    users = 1.0 if kind == "synchronous" else strategy.number("streams", absent=0.0)
    rate = strategy.number("rate") if kind in ("constant", "poisson", "async") else np.nan
    if kind in ("trace", "replay") and listed is not None:
        work = Workload("measured", listed[0] - listed[0, 0], prompt, output, "open")
    elif kind in ("synchronous", "concurrent", "constant", "poisson", "async", "throughput"):
        users = users or strategy.number("max_concurrency", absent=0.0)
        work = loaded(prompt, output, users, rate, np.inf if kind == "constant" else 1.0)
    else:
        raise Bad(f"the load '{kind[:20]}' is not known")
    about = {"model": _guide_model(one, whole), "gpu": "", "date": ""}
    return FileRun(where, "guidellm", work, found, about, failed=int(totals.number("errored", absent=0.0)))


def _each_request(one: Fields, size: int) -> NDArray[np.float64] | None:
    """[3, n] moment of sending [s], prompt and output tokens of each request in the order of sending; None where the file has them not
    of all."""
    rows = [Fields(each) for each in one.inner("requests").items("successful")]
    names = (("request_start_time", "start_time"), ("prompt_tokens",), ("output_tokens",))
    if len(rows) != size or any(row.number(*name) != row.number(*name) for row in rows for name in names):
        return None
    return np.array(sorted(tuple(row.number(*name, least=float(at > 0)) for at, name in enumerate(names)) for row in rows)).T


def _guide_model(one: Fields, whole: Fields) -> str:
    """The model, wherever the version of the report has it."""
    places = (whole.inner("args"), whole.inner("config").inner("spec").inner("backend"), whole.inner("config").inner("backend"),
              one.inner("config").inner("backend"))  # fmt: skip
    return next(filter(None, (place.text("model") for place in places)), "")


def _without_ttft(found: dict[Key, float], metrics: Fields, output: float) -> None:
    """Where only GuideLLM's TPOT is there, (TPOT · n − TTFT) / (n − 1) is what everybody else calls so."""
    theirs = metrics.inner("time_per_output_token_ms").inner("successful").number("mean") / 1e3
    if found[("tpot", "mean")] != found[("tpot", "mean")] and output > 1.5 and theirs == theirs:
        found[("tpot", "mean")] = (theirs * output - found[("ttft", "mean")]) / (output - 1.0)


# ---- aiperf --------------------------------------------------------------------------------------------------------------

TAGS = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "e2e": "request_latency"}
UNITS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "milliseconds": 1e-3, "us": 1e-6, "ns": 1e-9, "": 1e-3}
AVERAGES = {"mean": "avg", "median": "p50"}


def _seconds(block: Fields, key: str) -> float:
    unit = block.text("unit").lower()
    if unit not in UNITS:
        raise Bad(f"the unit '{unit[:20]}' is not known")
    return block.number(key) * UNITS[unit]


def _aiperf(docs: Docs, path: str, spread: float) -> Iterator[FileRun]:
    for where, value in docs:
        doc = Fields(value)
        if value.get("was_cancelled"):
            raise Bad("the run was cancelled")
        found: dict[Key, float] = {
            (metric, stat): _seconds(doc.inner(tag), AVERAGES.get(stat, stat)) for metric, tag in TAGS.items() for stat in STATS
        }
        found[("throughput", "mean")] = doc.inner("output_token_throughput").number("avg")
        found[("power", "mean")] = _telemetry(doc)
        size = int(doc.inner("request_count").number("avg", least=1, most=MOST_REQUESTS))
        blocks = [doc.inner(f"{kind}_sequence_length") for kind in ("input", "output")]
        sizes = [(block.number("avg", least=1), block.number("std")) for block in blocks]
        prompt, output = (lengths(mean, size, spread, at, sd) for at, (mean, sd) in enumerate(sizes))
        config = doc.inner("input_config")
        work = loaded(prompt, output, *_aiperf_load(config))
        failed = sum(int(Fields(each).number("count", absent=0.0)) for each in doc.items("error_summary") if isinstance(each, dict))
        failed = max(failed, int(doc.inner("error_request_count").number("avg", absent=0.0)))
        about = {"model": _aiperf_model(config), "gpu": "", "date": doc.text("start_time")}
        yield FileRun(where, "aiperf", work, found, about, failed=failed)


def _aiperf_load(config: Fields) -> tuple[float, float, float]:
    """Users, rate [1/s] and burstiness: of the load generator, or of the measured phase where a configuration has phases."""
    load = config.inner("loadgen")
    if load.value:
        even = load.text("request_rate_mode") == "constant"
        return load.number("concurrency"), load.number("request_rate", endless=True), np.inf if even else 1.0
    phases = [Fields(each) for each in config.items("phases")]
    measured = [each for each in phases if "warmup" not in (each.text("kind"), each.text("name"))]
    if len(measured) > 1:
        raise Bad(f"its figures are of {len(measured)} phases together; give those of one: phases/NAME/profile_export_aiperf.json")
    phase = measured[0] if measured else Fields({})
    kind = phase.text("type") or "concurrency"
    if kind not in PHASES:
        raise Bad(f"the load '{kind[:20]}' is not known without its records: give profile_export.jsonl")
    burstiness = phase.number("smoothness", absent=1.0) if kind == "gamma" else PHASES[kind]
    return phase.number("concurrency"), phase.number("rate", endless=True), burstiness


PHASES = {"concurrency": 1.0, "poisson": 1.0, "gamma": 1.0, "constant": np.inf}  # type of a phase -> burstiness of its arrivals


def _aiperf_model(config: Fields) -> str:
    """The first model that a configuration names."""
    old, new = config.inner("endpoint").items("model_names"), config.inner("models").items("items")
    return str(old[0]) if old else Fields(new[0]).text("name") if new else ""


def _telemetry(doc: Fields) -> float:
    """Mean power of a GPU [W]; NaN where nobody looked."""
    watts = [
        next((Fields(each).number("avg") for name, each in metrics.items() if name in POWER), np.nan)
        for host in doc.inner("telemetry_data").inner("endpoints").value.values()
        if isinstance(host, dict)
        for gpu in Fields(host).inner("gpus").value.values()
        if isinstance(gpu, dict)
        for metrics in (Fields(gpu).inner("metrics").value,)
    ]
    return float(np.mean(watts)) if watts else np.nan


POWER = ("gpu_power_usage", "nvidia_power_usage", "amd_power_usage", "amd_socket_power")  # names of it over aiperf's schema versions


def _aiperf_requests(docs: Docs, path: str, spread: float) -> Iterator[FileRun]:
    """Per request: moments of sending are replayed as they were."""
    rows, failed = [], 0
    for _, value in docs:
        doc = Fields(value)
        metrics = doc.inner("metrics")
        if doc.inner("metadata").text("benchmark_phase") == "warmup":
            continue  # they are over when the clock starts
        if value.get("error") or doc.inner("metadata").value.get("was_cancelled"):
            failed += 1
            continue
        times = [_value(metrics, tag) for tag in ("time_to_first_token", "request_latency")]
        sizes = [metrics.inner(f"{kind}_sequence_length").number("value", least=1) for kind in ("input", "output")]
        rows.append((doc.inner("metadata").number("request_start_ns", least=0, most=1e20) * 1e-9, *times, *sizes))
    if not rows:
        raise Bad("no request finished")
    start, ttft, e2e, prompt, output = np.array(sorted(rows)).T
    if not np.isfinite(start).all() or not np.isfinite(ttft).all():
        raise Bad("some requests have no moment of sending or no TTFT")
    several = output > 1
    found = stats_of_all("ttft", ttft) | stats_of_all("e2e", e2e)
    if several.any():
        found |= stats_of_all("tpot", ((e2e - ttft)[several]) / (output[several] - 1))
    found[("throughput", "mean")] = float(output.sum() / max((start + e2e).max() - start.min(), 1e-9))
    work = Workload("aiperf", start - start[0], prompt.astype(np.int64), output.astype(np.int64), "open")
    yield FileRun(path, "aiperf records", work, found, {"model": "", "gpu": "", "date": ""}, failed=failed)


def _value(metrics: Fields, tag: str) -> float:
    return _seconds(metrics.inner(tag), "value")


# ---- InferenceX ----------------------------------------------------------------------------------------------------------


def _inferencex(docs: Docs, path: str, spread: float) -> Iterator[FileRun | Passed]:
    for where, value in docs:
        try:
            yield _row(Fields(value), where)
        except (Bad, InputError) as bad:
            yield Passed(where, bad.what if isinstance(bad, InputError) else str(bad))


def _row(doc: Fields, where: str) -> FileRun:
    drafted = doc.text("spec_decoding") not in ("", "none") or doc.text("mtp") not in ("", "off", "none", "false")
    if doc.truth("disagg") or doc.truth("is_multinode") or drafted:
        raise Bad("disaggregated, multi-node and speculative runs are not read")
    if any(doc.number(f"{kind}_size", absent=1.0) > 1 for kind in ("dcp", "pcp")):
        raise Bad("context parallelism is not modelled")
    isl, osl, users = (int(doc.number(name, least=1, most=1 << 24)) for name in ("isl", "osl", "conc"))
    prompt, output = inferencex_population(isl, osl, 10 * users)
    found = {
        (metric, stat): doc.number(f"{stat}_{stem}") for metric, stem in FLAT.items() for stat in (TABULAR if metric == "itl" else STATS)
    }
    found[("power", "mean")] = doc.number("avg_power_w") if doc.number("power_valid", absent=1.0) else np.nan
    tp, ep = int(doc.number("tp", least=1, most=4096)), int(doc.number("ep", absent=1.0, least=1, most=4096))
    widths = layout(tp, int(doc.number("pp", absent=1.0, least=1, most=4096)), tp if doc.truth("dp_attention") else 1, ep)
    about = {"model": doc.text("model"), "gpu": doc.text("hw").partition("-")[0], "date": doc.text("date")}
    said = of_image(doc.text("framework"), doc.text("image"), doc.text("precision"))
    return FileRun(where, "InferenceX", loaded(prompt, output, users, np.nan), found, about, widths, server=said)


# ---- the table -----------------------------------------------------------------------------------------------------------

Reader = Callable[[Docs, str, float], Iterator[Any]]
READERS: dict[str, tuple[tuple[frozenset[str], ...], Reader]] = {  # name -> (any of these sets of keys, how it is read)
    "SGLang bench_serving": ((frozenset({"mean_ttft_ms", "mean_e2e_latency_ms"}),), _sglang),
    "vLLM bench serve": (
        (frozenset({"mean_ttft_ms", "total_output_tokens"}), frozenset({"input_lens", "output_lens", "ttfts", "itls"})),
        _vllm,
    ),
    "GuideLLM": ((frozenset({"benchmarks"}),), _guidellm),
    "aiperf": ((frozenset({"time_to_first_token", "request_latency"}),), _aiperf),
    "aiperf records": ((frozenset({"metadata", "metrics"}),), _aiperf_requests),
    "InferenceX": ((frozenset({"hw", "conc", "isl", "osl"}),), _inferencex),
}
LEAST = {"ttft": 1e-4, "e2e": 1e-4, "tpot": 1e-5}  # s: a launch alone takes as long
WHOLE = ("aiperf records",)  # all documents of a file are one run


def kind_of(value: Any) -> str:
    """The program that wrote a document; "" where nobody knows."""
    keys = set(value) if isinstance(value, dict) else set()
    return next((name for name, (wanted, _) in READERS.items() if any(some <= keys for some in wanted)), "")


def read_results(path: str, spread: float = 0.0) -> list[FileRun | Passed]:
    """All runs of a file, sound or not; raises InputError where none is of a known kind.  spread: half width of lengths over their mean,
    where the file has only means."""
    docs = _documents(path)
    kinds = [kind_of(value) for _, value in docs]
    if not any(kinds):
        told = "closed-loop CSV, " + ", ".join(READERS)
        raise InputError("is no result file that is known", path, f"expected one of {told}")
    found: list[FileRun | Passed] = [Passed(where, "has the keys of no known result") for (where, _), kind in zip(docs, kinds) if not kind]
    for name, (_, reader) in READERS.items():
        mine = [doc for doc, kind in zip(docs, kinds) if kind == name]
        for part in [mine] if name in WHOLE and mine else [[doc] for doc in mine]:
            found += _sound(reader, part, path, spread)
    return found


def _sound(reader: Reader, docs: Docs, path: str, spread: float) -> list[FileRun | Passed]:
    """The runs of a part of a file; what is wrong with it is said, and never more than that."""
    where = docs[0][0]
    if any(isinstance(value, dict) and str(value.get("backend")).startswith(PREDICTED) for _, value in docs):
        return [Passed(where, "is a prediction of apexsim, no measurement")]
    try:
        return [fault(run) or run if isinstance(run, FileRun) else run for run in reader(docs, path, spread)]
    except Bad as bad:
        return [Passed(where, str(bad))]
    except InputError as error:
        return [Passed(where, error.what)]


def is_sweep(path: str) -> bool:
    """Whether a file is the table that vLLM's sweeps write beside their results."""
    with opened(path, "result file") as file:
        head = file.readline(1 << 16).decode("utf-8-sig", "replace")
    return READERS["vLLM bench serve"][0][0] <= {name.strip().strip('"') for name in head.split(",")}


def _cell(text: str) -> Any:
    """A cell of such a table as its JSON had it."""
    try:
        return float(text)
    except ValueError:
        return {"": None, "True": True, "False": False}.get(text, text)


def _table(text: str, path: str) -> list[tuple[str, Any]]:
    rows = csv.DictReader(text.splitlines())
    return [(f"{path}:{at + 2}", {key: _cell(value or "") for key, value in row.items() if key}) for at, row in enumerate(rows)]


def _documents(path: str) -> list[tuple[str, Any]]:
    """The JSON values of a file: one, a list of them, or one on each line; or the rows of a sweep's table."""
    text = read_text(path, "result file", DOCUMENT)
    if is_sweep(path):
        return _table(text, path)
    try:
        whole = loads(text)
        return [(f"{path} item {at + 1}", value) for at, value in enumerate(whole)] if isinstance(whole, list) else [(path, whole)]
    except RecursionError:
        raise InputError("the result file is nested too deeply", path) from None
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputError(f"the result file is neither JSON nor JSON lines ({str(error)[:80]})", path) from None
    return [(f"{path}:{at + 1}", _line(line)) for at, line in enumerate(text.splitlines()) if line.strip()]


def _line(text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None


# ---- is it sound? --------------------------------------------------------------------------------------------------------

FEWEST = 8  # requests of a run
ROUNDS = 2  # … and of each user
LOST = 0.02  # share of requests that may have failed
APART = 0.25  # relative: what may lie between E2E and TTFT + TPOT · (n - 1), of means over requests of unequal length
CROWDED = 1.1  # requests in flight over users, at most


def fault(run: FileRun) -> Passed | None:
    """Why a run is not used; None where it is sound."""
    told = {key: value for key, value in run.measured.items() if value == value and value > 0.0}
    why = _short(run) or _contradiction(run.workload, told)
    if not why and not any(metric in ("ttft", "tpot", "itl", "e2e", "throughput") for metric, _ in told):
        why = "measures no latency and no throughput"
    return Passed(run.where, why) if why else None


def _short(run: FileRun) -> str:
    work = run.workload
    if run.failed > LOST * (work.size + run.failed):
        return f"{run.failed} of {work.size + run.failed} requests failed"
    least = max(FEWEST, ROUNDS * work.concurrency)
    return f"too short: {work.size} requests, expected at least {least}" if work.size < least else ""


def _contradiction(work: Workload, told: Mapping[Key, float]) -> str:
    """Numbers of one run that cannot all be true."""
    ttft, tpot, e2e, rate = (told.get((name, "mean")) for name in ("ttft", "tpot", "e2e", "throughput"))
    times = {name: took for (name, stat), took in told.items() if stat in ("mean", "median")}
    soon = next((f"{name.upper()} {took:.3g} s" for name, took in times.items() if took < LEAST.get(name, 0.0)), "")
    if soon:
        return f"{soon} is sooner than any GPU answers"
    steps = float(work.output.mean()) - 1.0
    if ttft and e2e and ttft > 1.001 * e2e:
        return f"contradicts itself: mean TTFT {ttft:.3g} s is beyond mean E2E {e2e:.3g} s"
    if ttft and tpot and e2e and abs((ttft + tpot * steps) / e2e - 1.0) > APART:
        return f"contradicts itself: TTFT + TPOT × {steps:.0f} is {ttft + tpot * steps:.3g} s, E2E {e2e:.3g} s"
    if rate and e2e and work.mode == "closed":
        flying = rate / (steps + 1.0) * e2e
        if flying > CROWDED * work.concurrency:
            return f"contradicts itself: {flying:.1f} requests in flight with {work.concurrency} users"
    return ""
