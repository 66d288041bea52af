"""Times of collectives through torch.distributed: one process per rank, NCCL on GPUs, Gloo on CPUs (floor 5)."""

from __future__ import annotations

import math
import os
import socket
import time as clock
from statistics import median
from typing import Any

from apexsim.errors import InputError
from apexsim.profile.jobs import TimedRow

WARM, BATCHES, LEAST, MOST, MIN_TIME = 3, 5, 2, 50, 0.02
PATIENCE = 120.0  # [s] until a rank that does not answer is given up


class RankGroup:
    """`count` ranks on this node; a job's time is that of its slowest rank."""

    def __init__(self, count: int, device: str) -> None:
        import torch.multiprocessing as mp

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.get_context("spawn")
        pipes = [context.Pipe() for _ in range(count)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(rank, count, device, port, theirs), daemon=True) for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()

    def seconds(self, job: TimedRow) -> float:
        """Time of one collective [s]; NaN where a rank cannot run it."""
        for pipe in self.pipes:
            pipe.send((job.kind, job.size("size")))
        times = []
        for pipe in self.pipes:
            if not pipe.poll(PATIENCE):
                self.close()
                raise InputError(
                    f"{job.kind} of {len(self.pipes)} ranks does not return",
                    "apexsim profile comm",
                    "see NCCL_DEBUG=INFO",
                )
            times.append(pipe.recv())
        return max(times) if not any(math.isnan(t) for t in times) else math.nan

    def close(self) -> None:
        """End the ranks."""
        for pipe, process in zip(self.pipes, self.processes):
            if process.is_alive():
                pipe.send(None)
                process.join(5.0)
                process.terminate()


def _serve(rank: int, count: int, device: str, port: int, pipe: Any) -> None:
    """One rank: jobs in, seconds out."""
    import torch
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=rank, world_size=count)
    while (job := pipe.recv()) is not None:
        try:
            pipe.send(_time(torch, dist, device, rank, count, *job))
        except (RuntimeError, NotImplementedError):
            pipe.send(math.nan)
    dist.destroy_process_group()


def _time(torch: Any, dist: Any, device: str, rank: int, count: int, kind: str, nbytes: int) -> float:
    """Median over batches; every rank makes the same number of runs, which rank 0 decides."""
    run = _run(torch, dist, device, rank, count, kind, nbytes)

    def batch(times: int) -> float:
        dist.barrier()
        if device == "cuda":
            torch.cuda.synchronize()
        begun = clock.perf_counter()
        for _ in range(times):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        return (clock.perf_counter() - begun) / times

    batch(WARM)
    wanted = torch.tensor([min(MOST, max(LEAST, math.ceil(MIN_TIME / BATCHES / max(batch(1), 1e-7))))], device=device)
    dist.broadcast(wanted, 0)
    return median(batch(int(wanted.item())) for _ in range(BATCHES))


def _run(torch: Any, dist: Any, device: str, rank: int, count: int, kind: str, nbytes: int) -> Any:
    """The collective of `nbytes`, sizes as in `cost.ring`: the whole tensor of one rank."""
    whole = max(count, nbytes // 2 // count * count)  # 16-bit numbers
    x = torch.zeros(whole, dtype=torch.float16, device=device)
    part = torch.zeros(whole // count, dtype=torch.float16, device=device)
    if kind == "sendrecv":
        return lambda: dist.send(x, 1) if rank == 0 else dist.recv(x, 0)
    out = torch.zeros_like(x)
    table = {
        "all_reduce": lambda: dist.all_reduce(x),
        "all_gather": lambda: dist.all_gather_into_tensor(x, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, x),
        "alltoall": lambda: dist.all_to_all_single(out, x),
    }
    return table[kind]
