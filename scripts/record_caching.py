"""Record what vLLM's own scheduler does with prefix caching on: tests/golden/vllm_caching.json.

    python scripts/record_caching.py tests/golden/vllm_caching.json 4800 [FIRST]
    python scripts/record_caching.py show 17

Needs what scripts/record_schedules.py needs, and drives the same calls.  The workloads are those of tests/caching_worlds.py, by their
numbers from FIRST (0) on: made again wherever they are compared, so that of each only two digests are kept.  `show` prints one in full.
Releases are kept beside one another: a record of the same release is replaced.
"""

from __future__ import annotations

import json
import sys
import tempfile
from copy import copy
from pathlib import Path
from typing import Any

from record_schedules import MODEL, Engine, model_of, scheduler_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from caching_worlds import Told, case_of, ends_digest, steps_digest

ABOUT = (
    "What vLLM's V1 scheduler does with prefix caching on, recorded by scripts/record_caching.py; vLLM is Apache-2.0 "
    "(https://github.com/vllm-project/vllm). Every step takes 1 s. The workloads are tests/caching_worlds.py, case_of(first), "
    "case_of(first + 1) … Of each, 8 hexadecimal digits of steps (who took part in which step with how many tokens) and of ends (start, "
    "first token, finish, preemptions and tokens found of each request): steps_digest and ends_digest of that file."
)
LONGEST = 1 << 12  # tokens of a request


def told_by_vllm(number: int, model: Any) -> Told:
    """What vLLM does with the workload of this number."""
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

    digest = _sha256()
    init_none_hash(digest)
    case = case_of(number)
    short = copy(model)
    short.max_model_len = LONGEST if case.rules["chunk"] else case.rules["budget"]
    scheduler = scheduler_of(case.rules, short, reuse=True)
    engine = Engine(scheduler, bool(case.rules["ahead"]), case.requests, get_request_block_hasher(case.rules["block"], digest))
    engine.serve()
    return Told(engine.steps, engine.start, engine.first, engine.finish, engine.thrown(), engine.hit)


def _sha256() -> Any:
    """vLLM's hash of blocks, where this release keeps it."""
    try:
        from vllm.utils.hashing import sha256
    except ImportError:
        from vllm.utils import sha256
    return sha256


def kept(release: str, first: int, told: list[Told]) -> dict[str, Any]:
    """The record of a release, lines of 16 digests."""
    return {
        "vllm": release,
        "first": first,
        "steps": _lines([steps_digest(x) for x in told]),
        "ends": _lines([ends_digest(x) for x in told]),
    }


def _lines(digests: list[str]) -> list[str]:
    return ["".join(digests[i : i + 16]) for i in range(0, len(digests), 16)]


def main() -> int:
    """Write the file named on the command line, or show one workload."""
    import vllm

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL))
        model = model_of(folder, LONGEST)
        if sys.argv[1] == "show":
            print(case_of(int(sys.argv[2])), told_by_vllm(int(sys.argv[2]), model), sep="\n")
            return 0
        first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
        told = [told_by_vllm(first + i, model) for i in range(int(sys.argv[2]))]
    path = Path(sys.argv[1])
    before = json.loads(path.read_text())["records"] if path.exists() else []
    records = [x for x in before if x["vllm"] != vllm.__version__] + [kept(vllm.__version__, first, told)]
    records.sort(key=lambda x: tuple(map(int, x["vllm"].split(".")[:2])), reverse=True)
    path.write_text(json.dumps({"format": 1, "about": ABOUT, "licence": "Apache-2.0", "records": records}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
