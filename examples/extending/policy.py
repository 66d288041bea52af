"""A batching policy: a row of numbers.  Shortest prompts first, in vLLM's mixed batches with a small budget."""

import apexsim

question = {
    "gpu": "h100-sxm",
    "gpus": 8,
    "prompt_len": 3000,
    "output_len": 64,
    "num_requests": 200,
    "request_rate": 6.0,
    "length_spread": 0.9,
}
fair = apexsim.simulate("llama-3.1-70b", "TP8", **question)
short = apexsim.simulate("llama-3.1-70b", "TP8", settings={"order": 1, "max_num_batched_tokens": 2048}, **question)
print(*(f"{s.ranked[0].metrics.ttft.mean * 1e3:.0f} ms" for s in (fair, short)))
assert short.ranked[0].metrics.completed == 200
