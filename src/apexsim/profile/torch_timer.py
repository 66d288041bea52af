"""Times of single kernels through PyTorch (floor 5).  Torch is imported when a timer is made, never before.

Each kernel runs WARM times, then in batches until MIN_TIME has passed or MOST runs were made; the median of the batches
counts.  On CUDA a batch is captured into a graph, so that launches by the host do not count, and
replayed between two events, with operands rotated through more memory than the last-level cache
holds, so that weights come from DRAM as they do in a model of many layers.  Elsewhere the wall clock is read after each
batch.  Energy is NVML's counter over all batches where the package pynvml and the GPU have it, else unknown.

What runs: matrix products by torch.nn.functional.linear; attention by scaled_dot_product_attention on contiguous
caches (an engine's paged kernels differ, most in decode); experts as batched products under balanced load, without
routing and permutation.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from apexsim.errors import InputError
from apexsim.profile.jobs import COLLECTIVES, TimedRow
from apexsim.profile.run import Sample

WARM, BATCHES, MIN_TIME, MOST = 3, 5, 0.02, 200
SPREAD = 256e6  # [byte] that operands are rotated through: above every last-level cache but the largest
COPIES = 64
MEMORY_SHARE = 0.5  # of the free memory that one job's operands may take

Run = Callable[[int], Any]


def torch_module() -> Any:
    """PyTorch, or InputError."""
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is not installed", "apexsim profile", "install it for your accelerator, or plan with --dry-run") from None
    return torch


class TorchTimer:
    """A `Backend` for one device of PyTorch: "cuda", or "cpu" (to try the procedure)."""

    def __init__(self, device: str = "cuda", min_time: float = MIN_TIME, ranks: int = 0) -> None:
        self.torch = torch_module()
        if device == "cuda" and not self.torch.cuda.is_available():
            raise InputError("PyTorch finds no GPU", "apexsim profile", "run it on the accelerator, or plan with --dry-run")
        self.device, self.min_time = device, min_time
        there = self.torch.cuda.device_count() if device == "cuda" else 1
        if ranks > there:
            raise InputError(f"{ranks} GPUs were asked for, {there} are there", "--gpus")
        self.ranks = ranks or there
        self.energy = _Energy() if device == "cuda" else None
        self._groups: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """Name of the device, as its vendor gives it."""
        return str(self.torch.cuda.get_device_name(0)) if self.device == "cuda" else "cpu"

    def measure(self, job: TimedRow) -> Sample:
        """Median time of one run; NaN where memory is short or the kernel does not exist."""
        if job.kind in COLLECTIVES:
            return self._collective(job)
        try:
            with self.torch.no_grad():
                return self._timed(RUNS[job.kind](self, job))
        except (self.torch.OutOfMemoryError, MemoryError, NotImplementedError):
            return Sample(math.nan)
        finally:
            if self.device == "cuda":
                self.torch.cuda.empty_cache()

    def close(self) -> None:
        """End the processes of the collectives."""
        for group in self._groups.values():
            group.close()

    def _collective(self, job: TimedRow) -> Sample:
        from apexsim.profile.torch_comm import RankGroup

        count = job.size("num_gpus_per_node")
        if count not in self._groups:
            self.close()
            self._groups = {count: RankGroup(count, self.device)}
        return Sample(self._groups[count].seconds(job))

    def copies(self, nbytes: float) -> int:
        """How many sets of operands are rotated; raises MemoryError where one alone is too large."""
        free = self.torch.cuda.mem_get_info()[0] if self.device == "cuda" else 4e9
        if nbytes > MEMORY_SHARE * free:
            raise MemoryError
        most = int(MEMORY_SHARE * free // max(nbytes, 1))
        return max(1, min(COPIES, most, math.ceil(SPREAD / max(nbytes, 1))) if self.device == "cuda" else 1)

    def random(self, *shape: int, dtype: str = "half") -> Any:
        """Normal numbers on the device."""
        kind = {"float": self.torch.float32, "bf16": self.torch.bfloat16, "half": self.torch.float16}[dtype]
        return self.torch.randn(*shape, device=self.device).to(kind)

    def _timed(self, run: Run) -> Sample:
        for i in range(WARM):
            run(i)
        one = self._batch(run, 1)
        count = max(1, min(MOST, math.ceil(self.min_time / BATCHES / max(one, 1e-7))))
        begun = self.energy.joules() if self.energy else math.nan
        go = self._captured(run, count)
        times = [self._watch(go) / count for _ in range(BATCHES)]
        used = (self.energy.joules() - begun) / (count * BATCHES) if self.energy else math.nan
        enough = count * BATCHES * median(times) > 0.1  # NVML's counter moves every 20 to 100 ms
        return Sample(median(times), used if enough and used > 0 else math.nan)

    def _batch(self, run: Run, count: int) -> float:
        """Seconds of one run, averaged over a batch that the host launches."""
        return self._watch(partial(_repeat, run, count)) / count

    def _captured(self, run: Run, count: int) -> Callable[[], Any]:
        """A batch as one replayed graph on CUDA, else, and where a kernel cannot be captured, launched by the host."""
        eager = partial(_repeat, run, count)
        if self.device != "cuda":
            return eager
        try:
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph):
                eager()
            graph.replay()
            self.torch.cuda.synchronize()
        except RuntimeError:
            self.torch.cuda.synchronize()
            return eager
        return graph.replay  # type: ignore[no-any-return]

    def _watch(self, go: Callable[[], Any]) -> float:
        """Seconds of one call, between two events on CUDA, else by the wall clock."""
        if self.device != "cuda":
            begun = clock.perf_counter()
            go()
            return clock.perf_counter() - begun
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.torch.cuda.synchronize()
        first.record()
        go()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3


def _repeat(run: Run, count: int) -> None:
    for i in range(count):
        run(i)


class _Energy:
    """NVML's energy counter of GPU 0; NaN where there is none."""

    def __init__(self) -> None:
        self._read: Callable[[], float] = lambda: math.nan
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception:  # no package, no driver, no counter: each raises its own
            return
        self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3

    def joules(self) -> float:
        """Energy since the driver was loaded [J]."""
        return self._read()


def _gemm(timer: TorchTimer, job: TimedRow) -> Run:
    """y = x · wᵀ with m outputs, k inputs, n tokens."""
    m, k, n = (job.size(name) for name in ("m", "k", "n"))
    size = 4 if job.dtype == "float" else 2
    count = timer.copies(size * (m * k + n * k + m * n))
    weights = [timer.random(m, k, dtype=job.dtype) for _ in range(count)]
    x = timer.random(n, k, dtype=job.dtype)
    linear = timer.torch.nn.functional.linear
    return lambda i: linear(x, weights[i % count])


def _attention(queries: bool, causal: bool) -> Callable[[TorchTimer, TimedRow], Run]:
    """Attention of whole prompts, or of one new token each over the cached ones; kv heads repeat inside the kernel."""

    def make(timer: TorchTimer, job: TimedRow) -> Run:
        b, s, h, g, d = (job.size(name) for name in ("batch_size", "seq_len", "num_heads", "num_kv_heads", "head_size"))
        length, dtype = s if queries else 1, job.dtype
        count = timer.copies(2 * d * b * (2 * s * g + 2 * length * h))
        sets = [tuple(timer.random(b, heads, n, d, dtype=dtype) for heads, n in ((h, length), (g, s), (g, s))) for _ in range(count)]
        attend = timer.torch.nn.functional.scaled_dot_product_attention
        return lambda i: attend(*sets[i % count], is_causal=causal, enable_gqa=h != g)

    return make


def _moe(timer: TorchTimer, job: TimedRow) -> Run:
    """Gate and up, activation, down for the experts that balanced routing touches."""
    hidden, inner, top_k, experts, tokens = (job.size(n) for n in ("hidden", "inner", "top_k", "experts", "tokens"))
    pairs = tokens * top_k
    touched = min(experts, pairs)
    rows = math.ceil(pairs / touched)
    count = timer.copies(2 * touched * (3 * hidden * inner + rows * (2 * hidden + 3 * inner)))
    up = [timer.random(touched, hidden, 2 * inner) for _ in range(count)]
    down = [timer.random(touched, inner, hidden) for _ in range(count)]
    x, torch = timer.random(touched, rows, hidden), timer.torch

    def run(i: int) -> Any:
        gate, value = torch.bmm(x, up[i % count]).chunk(2, dim=-1)
        return torch.bmm(torch.nn.functional.silu(gate) * value, down[i % count])

    return run


RUNS: dict[str, Callable[[TorchTimer, TimedRow], Run]] = {
    "gemm": _gemm,
    "mha": _attention(queries=True, causal=True),
    "decode": _attention(queries=False, causal=False),
    "moe": _moe,
}
