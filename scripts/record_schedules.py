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
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from caching_worlds import Asked

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


def model_of(folder: str, longest: int) -> Any:
    """vLLM's idea of a model that is never loaded."""
    from vllm.config import ModelConfig

    return ModelConfig(model=folder, skip_tokenizer_init=True, dtype="float32", max_model_len=longest)


def scheduler_of(rules: dict[str, int], model: Any, reuse: bool = False) -> Any:
    """vLLM's scheduler for it; reuse: with prefix caching."""
    import torch
    from vllm.config import CacheConfig, DeviceConfig, SchedulerConfig, VllmConfig
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    known = "scheduler_reserve_full_isl" in SchedulerConfig.__dataclass_fields__
    reserve = {"scheduler_reserve_full_isl": bool(rules["reserve"])} if known else {}
    limits = SchedulerConfig(
        max_num_seqs=rules["seats"], max_num_batched_tokens=rules["budget"], max_model_len=model.max_model_len, is_encoder_decoder=False,
        enable_chunked_prefill=bool(rules["chunk"]), async_scheduling=bool(rules["ahead"]), **reserve,
    )  # fmt: skip
    cache = CacheConfig(block_size=rules["block"], enable_prefix_caching=reuse)
    config = VllmConfig(scheduler_config=limits, model_config=model, cache_config=cache, device_config=DeviceConfig("cpu"))
    spec = FullAttentionSpec(block_size=rules["block"], num_kv_heads=1, head_size=8, dtype=torch.float32)
    pool = KVCacheConfig(num_blocks=rules["blocks"] + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    cache.num_gpu_blocks = pool.num_blocks
    kind = AsyncScheduler if rules["ahead"] else Scheduler
    return kind(config, pool, StructuredOutputManager(config), block_size=rules["block"])


MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 1 << 16, "max_position_embeddings": 1 << 12,
}  # fmt: skip


class Engine:
    """vLLM's engine core with a clock: which calls it makes of its scheduler, and when."""

    def __init__(self, scheduler: Any, ahead: bool, requests: list[Asked], hasher: Any = None) -> None:
        self.scheduler, self.depth, self.asked = scheduler, 2 if ahead else 1, requests
        self.every = [self.request(i, x, hasher) for i, x in enumerate(requests)]
        self.coming = [(x.arrive, i) for i, x in enumerate(requests) if x.after < 0]  # a heap: who is sent when
        heapify(self.coming)
        self.now = self.free = 0.0
        self.flying: deque[tuple[float, Any]] = deque()
        self.steps: list[tuple[float, list[list[int]]]] = []
        self.stays = [0] * len(requests)  # how often it was admitted
        self.start, self.first, self.finish = ([0.0] * len(requests) for _ in range(3))
        self.hit = [0] * len(requests)  # tokens found when it first started

    def request(self, i: int, x: Asked, hasher: Any) -> Any:
        """As vLLM takes it."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        found = {"block_hasher": hasher} if hasher else {}
        return Request(str(i), list(x.prompt), SamplingParams(max_tokens=len(x.output), ignore_eos=True), None, **found)

    def serve(self) -> None:
        """Until all requests have all their tokens."""
        while self.coming or self.flying or self.scheduler.has_requests():
            if not self.flying and not self.scheduler.has_unfinished_requests() and self.coming:
                self.now = max(self.now, self.coming[0][0])
            while self.coming and self.coming[0][0] <= self.now:
                self.scheduler.add_request(self.every[heappop(self.coming)[1]])
            if self.scheduler.has_requests():
                self.begin(self.scheduler.schedule())
                if len(self.flying) < self.depth and self.scheduler.has_requests():
                    continue
            if self.flying:
                self.settle(*self.flying.popleft())

    def begin(self, out: Any) -> None:
        """The worker takes the step when it is free; an empty one takes no time."""
        held = [[int(i), n] for i, n in out.num_scheduled_tokens.items()]
        at, known = max(self.now, self.free), self.computed(out)
        for i, _ in held:
            if self.stays[i] <= self.every[i].num_preemptions:
                if not self.stays[i]:
                    self.start[i], self.hit[i] = at, known[str(i)]
                self.stays[i] = self.every[i].num_preemptions + 1
        if held:
            self.steps.append((at, held))
            self.free = at + 1.0
        self.flying.append((self.free if held else self.now, out))

    def settle(self, end: float, out: Any) -> None:
        """The step's results are known: a token for each request that has no more to compute."""
        from vllm.v1.outputs import ModelRunnerOutput

        self.now = max(self.now, end)
        names = list(out.num_scheduled_tokens)
        tokens = [self.answer(int(name)) if self.samples(name, out) else [] for name in names]
        left = [i for i, x in enumerate(self.every) if not x.is_finished()]
        self.scheduler.update_from_output(out, ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, tokens))
        for i in [i for i in left if self.every[i].is_finished()]:
            self.finish[i] = self.now
            for j in [j for j, x in enumerate(self.asked) if x.after == i]:
                heappush(self.coming, (self.now + self.asked[j].delay, j))

    def answer(self, i: int) -> list[int]:
        """The next token of a request."""
        made = self.every[i].num_output_tokens
        if not made:
            self.first[i] = self.now
        return self.asked[i].output[made : made + 1]

    def samples(self, name: str, out: Any) -> bool:
        """Did the step compute the last known token of the request?"""
        return self.computed(out)[name] + out.num_scheduled_tokens[name] >= self.every[int(name)].num_tokens

    def computed(self, out: Any) -> dict[str, int]:
        """Tokens of each request of the step that were computed before it."""
        cached = out.scheduled_cached_reqs
        fresh = {x.req_id: x.num_computed_tokens for x in out.scheduled_new_reqs}
        return fresh | dict(zip(cached.req_ids, cached.num_computed_tokens))

    def thrown(self) -> list[int]:
        """Times that each request was computed anew."""
        assert all(r.num_output_tokens == len(x.output) for r, x in zip(self.every, self.asked))
        return [n - 1 for n in self.stays]


def record(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """The case with what vLLM did."""
    rules = case["rules"]
    model = model_of(folder, 128 if rules["chunk"] else rules["budget"])
    asked = [Asked(arrive, [7] * prompt, [5] * output) for arrive, prompt, output in case["requests"]]
    engine = Engine(scheduler_of(rules, model), bool(rules["ahead"]), asked)
    engine.serve()
    return case | {"steps": engine.steps, "thrown": engine.thrown(), "finish": engine.finish}


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
