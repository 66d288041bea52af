"""An objective: one row of OBJECTIVES.  Here: the share of a request's time that it spends waiting for its first token."""

import apexsim
from apexsim.objective import LOWER, OBJECTIVES, ObjectiveKind

OBJECTIVES["first_share"] = ObjectiveKind(lambda m, _stat: m.ttft.mean / m.e2el.mean, LOWER, "of E2E")

study = apexsim.plan("llama-3.1-8b", gpu="h100-sxm", gpus=2, prompt_len=512, output_len=64, num_requests=32, request_rate=4.0,
                     objective="first_share")  # fmt: skip
values = [r.value for r in study.ranked]
assert values == sorted(values)
print(study.ranked[0].plan.shorthand, f"{values[0]:.1%}")
