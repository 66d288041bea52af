"""Files of measured systems: one row of `KINDS` for each kind, which its columns give away (floor 5)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apexsim.errors import InputError
from apexsim.files import lines
from apexsim.validate.apart_cases import Apart, apart, apart_open
from apexsim.validate.cases import Case
from apexsim.validate.closed_cases import closed_loop, described
from apexsim.validate.draft_cases import Pair, pair
from apexsim.validate.energy_cases import energy_row
from apexsim.validate.memory_cases import memory_row
from apexsim.validate.offline_cases import offline
from apexsim.validate.open_cases import across, open_loop, rated, request_level
from apexsim.validate.rows import Answered, Cells, Row, Skipped, converted, engine_spelled, gpu_spelled, units
from apexsim.validate.served_cases import Moved, SeedSpan, ladder, open_prefixes, pull, transfer
from apexsim.validate.step_cases import Steps, batch_gap, cold_prompt, queued, scheduler_step, wide

Asked = Case | Pair | Apart | SeedSpan | Moved | Steps | Answered | Skipped
Reader = Callable[[list[Row], Path], Iterator[Asked]]


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: what its columns are called, how its rows are read, the metrics that they may measure."""

    columns: frozenset[str]
    read: Reader
    metrics: tuple[str, ...]


def _told(row: Row, id: str, error: InputError) -> Skipped:
    labels = {"engine": row.get("backend") or row.get("engine") or "", "gpu": row.get("system") or row.get("gpu") or "",
              "model": row.get("config") or row.get("model") or ""}  # fmt: skip
    return Skipped(id, error.line(), labels)


def _each(reader: Callable[[Row, Path], Asked]) -> Reader:
    """Row by row; one that cannot be read says why and spoils no other."""

    def read(rows: list[Row], where: Path) -> Iterator[Asked]:
        for at, row in enumerate(rows):
            try:
                yield reader(row, where)
            except InputError as error:
                yield _told(row, row.get("id") or str(at), error)

    return read


def _counted(reader: Callable[[Row, int, Path], Asked]) -> Reader:
    """Row by row, where rows have no id but their number."""

    def read(rows: list[Row], where: Path) -> Iterator[Asked]:
        for at, row in enumerate(rows):
            try:
                yield reader(row, at, where)
            except InputError as error:
                yield _told(row, str(at), error)

    return read


def _kind(columns: str, read: Reader, metrics: str) -> FileKind:
    return FileKind(frozenset(columns.split()), read, tuple(metrics.split()))


TIMES = "ttft_mean_ms ttft_median_ms tpot_mean_ms tpot_median_ms e2e_mean_ms e2e_median_ms"
KINDS: dict[str, FileKind] = {
    "closed loop": _kind("backend concurrency attn_tp", _each(closed_loop), TIMES),
    "drafting pairs": _kind("id_spec id_base mode backend system draft_tokens ids_in speedup_tpot speedup_e2e", _each(pair),
                            "speedup_tpot speedup_e2e"),
    "prefill and decode apart": _kind("backend system concurrency prefill_workers decode_workers tput_out_per_gpu", _each(apart),
                                      "ttft_median_ms tpot_median_ms e2e_median_ms out_tok_s_per_gpu"),
    "prefill and decode apart, open loop": _kind("backend mode prefill_workers decode_workers replicas rate_rps out_tok_s",
                                                 _each(apart_open), "ttft_median_ms tpot_median_ms e2e_median_ms out_tok_s_per_gpu"),
    "open loop": _kind("engine requests_file ttft_mean_s itl_mean_s", _each(open_loop), "ttft_mean_ms itl_mean_ms e2e_mean_ms"),
    "request level": _kind("hw request_id arrival_s isl osl ttft_s", request_level, TIMES),
    "offline throughput": _kind("config isl osl num_requests out_tok_s_per_gpu pp tp", _each(offline), "out_tok_s_per_gpu"),
    "energy": _kind("quality_class gpu config load osl_mean power_w_per_gpu J_per_out_token", _each(energy_row),
                    "power_w_per_gpu j_per_out_token out_tok_s_per_gpu power_w_per_gpu_throughput_given"),
    "start-up memory": _kind("engine gpu_known weights_gib kv_tokens kv_gib outcome", _each(memory_row),
                             "weights_gib kv_tokens kv_tokens_given_kv_gib kv_gib kv_in_interval fits"),
    "scheduler steps": _kind("config gpu engine tp batch_decode_tokens batch_prefill_tokens period_us", _each(scheduler_step),
                             "step_ms"),
    "cold prompts": _kind("config gpu tp engine prompt_tokens ttft_ms", _each(cold_prompt), "ttft_ms"),
    "wide expert parallelism": _kind("config gpu phase ep prompt_tokens batch_per_gpu tok_s_per_node", _each(wide), "tok_s_per_node"),
    "gaps at a batch": _kind("model task gpu_model avg_batch_size median_itl_ms weight_precision", _counted(batch_gap), "itl_median_ms"),
    "serving benchmark": _kind("config backend num_prompts max_concurrency mean_ttft_ms mean_e2el_ms", _counted(described), TIMES),
    "queued at once": _kind("model kind run max_num_seqs num_prompts total_input_tokens mean_ttft_ms engine", _counted(queued),
                            "ttft_mean_ms ttft_median_ms tpot_mean_ms tpot_median_ms"),
    "rated open loop": _kind("gpu model strategy n duration_s itl_ms_mean prompt_tokens_mean", _each(rated),
                             "itl_mean_ms out_tok_s_per_gpu"),
    "pipeline across nodes": _kind("config gpu tp pp nodes link request_rate ttft_ms tpot_ms", _each(across),
                                   "ttft_mean_ms tpot_mean_ms req_s"),
    "prefix caching": _kind("experiment stage system backend_version prefix_caching distinct_prompts n_cold first_request", open_prefixes,
                            f"{TIMES} ttft_cold_median_ms ttft_warm_median_ms"),
    "routing ladder": _kind("policy rate out_tok_s ttft_stat prefixes questions shared_tokens own_tokens", ladder, "out_tok_s ttft_ms"),
    "KV transfer": _kind("network kv_bytes_stated transfer_ms prompt_tokens config", _each(transfer), "transfer_ms"),
    "KV pull": _kind("config gpu tp link prompt_tokens pull_ms recompute_ms", _each(pull), "pull_ms"),
}  # fmt: skip


def _cells(path: str | Path) -> Iterator[Row]:
    """The rows of a file, each with a cell for every column of its header."""
    table = csv.reader(lines(path, "file of measured runs"))
    head = [name.strip() for name in next(table, [])]
    twice = next((name for at, name in enumerate(head) if name and name in head[:at]), "")
    if twice:
        raise InputError(f"two columns are called '{twice}'", str(path), "which one counts? rename or drop one")
    other = units(head)
    for at, cells in enumerate(filter(None, table)):
        if len(cells) != len(head):
            raise InputError(f"{len(cells)} cells, the header names {len(head)} columns", f"{path}:{table.line_num}")
        yield _row(dict(zip(head, cells)), at, other)


def _row(cells: dict[str, str], at: int, other: Mapping[str, tuple[str, float]]) -> Row:
    """A row as readers expect it: numbered where it has no id, times in any unit, engines under their names."""
    found = Cells({"id": str(at)} | {name: converted(cells[column], factor) for name, (column, factor) in other.items()} | cells)
    for name in ("backend", "engine"):
        if name in found:
            found[name] = engine_spelled(found[name])
    if "system" in found:
        found["system"] = gpu_spelled(found["system"])
    return found


def read_rows(path: str | Path, kind: str = "") -> tuple[str, list[Row]]:
    """(kind, rows) of a file; raises InputError when it cannot be read, is empty, or has not the columns of (that) kind."""
    try:
        rows = list(_cells(path))
    except csv.Error as error:
        raise InputError(f"cannot be read as CSV ({error})", str(path), "give a file of measured runs") from error
    if not rows:
        raise InputError("holds no rows", str(path), "give a file of measured runs")
    wanted = {kind: KINDS[kind]} if kind else KINDS
    fitting = [name for name, known in wanted.items() if known.columns <= set(rows[0])]
    if fitting:
        return max(fitting, key=lambda name: len(wanted[name].columns)), rows
    columns = "; ".join(f"{name}: {', '.join(sorted(known.columns))}" for name, known in wanted.items())
    raise InputError("has the columns of no known kind", str(path), f"expected one of {columns}")


def read_cases(path: str | Path) -> tuple[str, list[Asked]]:
    """(kind, cases) of a file; raises InputError when it cannot be read or no kind has its columns."""
    kind, rows = read_rows(path)
    return kind, list(KINDS[kind].read(rows, Path(path)))
