"""Record what vLLM's own scheduler does with small workloads: tests/golden/vllm_schedules.json.

    python scripts/record_schedules.py tests/golden/vllm_schedules.json [CASES OF EACH KIND]

Needs an environment in which vLLM imports; no GPU and no model.  Drives `vllm.v1.core.sched.scheduler.Scheduler` (or its asynchronous
sister) in the order of calls of vLLM's engine core, with a worker that only counts: every step that holds tokens takes one second, one
after the other, and the engine takes none.  The arrivals of a case differ in their fractions of a second, so that none falls on the start
of a step, unless all come at 0.  What is written are facts: who took part in which step with how many tokens, and how often a request had
to be computed anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

ABOUT = (
    "Schedules of vLLM's V1 scheduler, recorded by scripts/record_schedules.py; vLLM is Apache-2.0 (https://github.com/vllm-project/vllm). "
    "Every step takes 1 s. rules: budget = max_num_batched_tokens, seats = max_num_seqs, block = tokens of a KV block, blocks = usable KV "
    "blocks (vLLM's pool holds one more, which it never gives out), chunk = chunked prefill, ahead = async scheduling, reserve = "
    "scheduler_reserve_full_isl. requests: [arrival [s], prompt tokens, output tokens]. steps: [begin [s], [[request, tokens], ...]] in "
    "the scheduler's order. thrown: times each request was computed anew after a preemption; finish: end of its last step [s]."
)


def world(rng: np.random.Generator, chunk: bool, ahead: bool, reserve: bool) -> dict[str, Any]:
    """A random small workload and the limits it meets."""
    size, block = int(rng.integers(2, 14)), int(rng.choice([1, 4, 16]))
    longest = int(rng.choice([6, 30, 90]))
    prompt = rng.integers(1, longest, size, endpoint=True)
    output = rng.integers(1, rng.choice([1, 8, 30]), size, endpoint=True)
    whole = int((prompt + output).max())
    seats = int(rng.choice([1, 2, 4, 16]))
    budget = max(seats, int(rng.choice([8, 24, 64])), 0 if chunk else whole)
    blocks = int(-(-whole // block) * rng.choice([1.0, 1.0, 1.2, 1.5, 6.0]))
    arrive = np.zeros(size) if rng.random() < 0.2 else np.cumsum(rng.exponential(rng.choice([0.5, 3.0]), size))
    arrive = np.floor(arrive) + (2 * np.arange(size) + 1) / 64 if arrive.any() else arrive
    rules = {"budget": budget, "seats": seats, "block": block, "blocks": blocks, "chunk": int(chunk), "ahead": int(ahead),
             "reserve": int(reserve)}  # fmt: skip
    return {"rules": rules, "requests": [[float(a), int(p), int(o)] for a, p, o in zip(arrive, prompt, output)]}


def scheduler_of(rules: dict[str, int], folder: str) -> Any:
    """vLLM's scheduler for a model that is never loaded."""
    import torch
    from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    longest = 128 if rules["chunk"] else rules["budget"]
    known = "scheduler_reserve_full_isl" in SchedulerConfig.__dataclass_fields__
    reserve = {"scheduler_reserve_full_isl": bool(rules["reserve"])} if known else {}
    limits = SchedulerConfig(
        max_num_seqs=rules["seats"], max_num_batched_tokens=rules["budget"], max_model_len=longest, is_encoder_decoder=False,
        enable_chunked_prefill=bool(rules["chunk"]), async_scheduling=bool(rules["ahead"]), **reserve,
    )  # fmt: skip
    model = ModelConfig(model=folder, skip_tokenizer_init=True, dtype="float32", max_model_len=longest)
    cache = CacheConfig(block_size=rules["block"], enable_prefix_caching=False)
    config = VllmConfig(scheduler_config=limits, model_config=model, cache_config=cache, device_config=DeviceConfig("cpu"))
    spec = FullAttentionSpec(block_size=rules["block"], num_kv_heads=1, head_size=8, dtype=torch.float32)
    pool = KVCacheConfig(num_blocks=rules["blocks"] + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    cache.num_gpu_blocks = pool.num_blocks
    kind = AsyncScheduler if rules["ahead"] else Scheduler
    return kind(config, pool, StructuredOutputManager(config), block_size=rules["block"])


MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 64, "max_position_embeddings": 4096,
}  # fmt: skip


class Engine:
    """vLLM's engine core with a clock: which calls it makes of its scheduler, and when."""

    def __init__(self, case: dict[str, Any], folder: str) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        self.scheduler = scheduler_of(case["rules"], folder)
        self.depth = 2 if case["rules"]["ahead"] else 1
        self.coming = deque(
            (arrive, Request(str(i), [7] * prompt, SamplingParams(max_tokens=output, ignore_eos=True), None))
            for i, (arrive, prompt, output) in enumerate(case["requests"])
        )
        self.every = [request for _, request in self.coming]
        self.now = self.free = 0.0
        self.flying: deque[tuple[float, Any]] = deque()
        self.steps: list[list[Any]] = []
        self.begun = [0] * len(self.every)  # times computed from its first token on
        self.finish = [0.0] * len(self.every)

    def serve(self) -> None:
        """Until all requests have all their tokens."""
        while self.coming or self.flying or self.scheduler.has_requests():
            if not self.flying and not self.scheduler.has_unfinished_requests() and self.coming:
                self.now = max(self.now, self.coming[0][0])
            while self.coming and self.coming[0][0] <= self.now:
                self.scheduler.add_request(self.coming.popleft()[1])
            if self.scheduler.has_requests():
                self.begin(self.scheduler.schedule())
                if len(self.flying) < self.depth and self.scheduler.has_requests():
                    continue
            if self.flying:
                self.settle(*self.flying.popleft())

    def begin(self, out: Any) -> None:
        """The worker takes the step when it is free; an empty one takes no time."""
        held = [[int(i), n] for i, n in out.num_scheduled_tokens.items()]
        at = max(self.now, self.free)
        for i, done in self.computed(out).items():
            self.begun[int(i)] += done == 0
        if held:
            self.steps.append([at, held])
            self.free = at + 1.0
        self.flying.append((self.free if held else self.now, out))

    def settle(self, end: float, out: Any) -> None:
        """The step's results are known: a token for each request that has no more to compute."""
        from vllm.v1.outputs import ModelRunnerOutput

        self.now = max(self.now, end)
        names = list(out.num_scheduled_tokens)
        tokens = [[5] if self.samples(name, out) else [] for name in names]
        self.scheduler.update_from_output(out, ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, tokens))
        for name in names:
            if self.every[int(name)].is_finished():
                self.finish[int(name)] = self.now

    def samples(self, name: str, out: Any) -> bool:
        """Did the step compute the last known token of the request?"""
        return self.computed(out)[name] + out.num_scheduled_tokens[name] >= self.every[int(name)].num_tokens

    def computed(self, out: Any) -> dict[str, int]:
        """Tokens of each request of the step that were computed before it."""
        cached = out.scheduled_cached_reqs
        fresh = {x.req_id: x.num_computed_tokens for x in out.scheduled_new_reqs}
        return fresh | dict(zip(cached.req_ids, cached.num_computed_tokens))


def record(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """The case with what vLLM did."""
    engine = Engine(case, folder)
    engine.serve()
    assert all(r.num_output_tokens == o for r, (_, _, o) in zip(engine.every, case["requests"]))
    return case | {"steps": engine.steps, "thrown": [n - 1 for n in engine.begun], "finish": engine.finish}


def main() -> int:
    """Write the file named on the command line."""
    import vllm

    size = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        kinds = [(c, a, r) for c in (True, False) for a in (False, True) for r in (True, False)]
        cases = [record(world(rng, *kind), folder) for kind in kinds for _ in range(size)]
    rows = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    head = json.dumps({"format": 1, "about": ABOUT, "vllm": vllm.__version__, "licence": "Apache-2.0"}, indent=1)[:-2]
    Path(sys.argv[1]).write_text(f'{head},\n "cases": [\n{rows}\n ]\n}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
