"""The commands that measure a designed run, in the words of each engine's own benchmark (floor 5)."""

from __future__ import annotations

from apexsim.calibrate.corners import Shape

VLLM = (  # speaks to every server of the OpenAI interface
    "vllm bench serve --backend openai --model {model} --dataset-name random --random-input-len {prompt} --random-output-len {output} "
    "--random-range-ratio 0 --ignore-eos --max-concurrency {users} --num-prompts {requests} --save-result --save-detailed "
    "--result-filename run-{prompt}-{users}.json"
)
OWN = {
    "sglang": "python -m sglang.bench_serving --backend sglang --model {model} --dataset-name random --random-input-len {prompt} "
    "--random-output-len {output} --random-range-ratio 1 --max-concurrency {users} --num-prompts {requests} --output-file runs.jsonl"
}  # its range ratio is the shortest length over the longest, vLLM's is what lies either side


def bench_line(engine: str, model: str, shape: Shape) -> str:
    """The command for a run against a server of the engine."""
    return OWN.get(engine, VLLM).format(model=model, prompt=shape.prompt, output=shape.output, users=shape.users, requests=shape.requests)
