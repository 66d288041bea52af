"""The verbs of Python, with the keywords of the command line (floor 7).  Made by scripts/verbs.py from the table of options."""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it: importing the package loads nothing that takes time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from apexsim.calibrate.run import Calibration
    from apexsim.plan.sized import Fit
    from apexsim.search.fleet import Fleet
    from apexsim.search.size import Size
    from apexsim.search.study import Study
    from apexsim.search.sweep import Sweep
    from apexsim.search.together import SharedFleet
    from apexsim.workload.trace import Workload

    Progress = Callable[[int, int, str], None]


def _calls() -> Any:
    from apexsim import calls

    return calls


def plan(
    model: str | Mapping[str, Any],
    *,
    gpu: str | Mapping[str, Any],
    gpus: int | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    workload: str | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    prompt_len: int | None = None,
    output_len: int | None = None,
    num_requests: int | None = None,
    request_rate: float | None = None,
    burstiness: float | None = None,
    concurrency: int | None = None,
    seed: int | None = None,
    length_spread: float | None = None,
    warmup: int | None = None,
    engine: str = "vllm",
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    stages: str | None = None,
    shared_prefix: str | None = None,
    turns: int | None = None,
    turn_gap: float | None = None,
    images: int = 0,
    image_size: str | None = None,
    quant: str | None = None,
    clock: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    objective: str = "e2e",
    slos: str | Sequence[str] | None = None,
    route: str = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    power_cap: float | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    hypothetical: bool = False,
    profile: str | None = None,
    pareto: str | None = None,
    rate_factor: float | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    prompt_cv: float | None = None,
    output_cv: float | None = None,
    lengths: str | None = None,
    speculate: str | None = None,
    acceptance: str | float | None = None,
    disaggregate: bool = False,
    prefill_settings: str | None = None,
    decode_settings: str | None = None,
    connector: str | None = None,
    conditional_disagg: str | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    gpu_memory_utilization: float | None = None,
    sampling: str | None = None,
    max_cudagraph_capture_size: int | None = None,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    tune: bool = False,
    sensitivity: bool = False,
    headroom: bool = False,
    workers: int = 0,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Rank every parallel plan of a model on a cluster for a stream of requests.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    workload: Requests with the lengths of a known use: chat, rag, code, summary, agent, reasoning … (see: apexsim.workloads()), or of
        a .toml file.
    time_unit: Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    prompt_len: Synthetic requests: prompt tokens; 32k is 32,768.
    output_len: Synthetic requests: output tokens.
    num_requests: Synthetic requests: how many; 2k is 2,000. Default: 1,024.
    request_rate: Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no times. inf: all at once.
    burstiness: Shape of the gamma-distributed gaps; 1 is Poisson (default), below 1 burstier.
    concurrency: Closed loop: C users, each sends the next request when the last has finished.
    seed: Seed of lengths and arrivals. Default: 0.
    length_spread: Half width of the lengths over their mean. Default: 0; 0.1 with concurrency.
    warmup: Requests at the start that metrics leave out. Default: in a closed loop the first of each user, where that leaves as many;
        else 0.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    settings: Engine settings by their names in the engine's file: {'watermark': 0.02}.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    activation_dtype: Default: what the weights' kernels take.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    max_model_len: Longest prompt + output. Default: that of the workload, rounded up to 1,024.
    stages: Load in stages, RATE:SECONDS each: 3:20,10:20. A stage begins when the last request of the one before has ended.
    shared_prefix: A prefix in front of each prompt, drawn from COUNT of so many TOKENS: 2000x50; 2000x50:even uses each as often.
    turns: Requests are turns of sessions, N each: a prompt is all that was said so far, and prompt_len more.
    turn_gap: Seconds from an answer to the next turn. Default: 0.
    images: Images in every request (vision models): their tokens and encoding are added.
    image_size: Pixels of an image. Default: 1024x1024.
    quant: Weight formats to search, e.g. auto,fp8,int4; auto is the checkpoint's own.
    clock: SM clocks to search [MHz], e.g. 810,1410,1980; the GPU's own is its highest.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    expert_load: Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.
    too_long: Requests longer than the model length: error, drop or clip.
    objective: ttft, tpot, itl, e2e, each :mean, :p50, :p95 or :p99; throughput; goodput; cost; energy (of GPUs); wall-energy (of
        servers).
    slos: Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.
    route: How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, cache-aware, prefix-hash, llm-d,
        dynamo, session or session-hash (docs/caching.md).
    signal_age: Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; 0.1 of least-
        waiting.
    kv_offload: Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's peak),
        disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).
    power_cap: Mean power that each GPU may draw [W]; plans above it rank last, clock offers slower ones.
    risk: Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the median decides.
    price: Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' costs). Default: on-
        demand, for every GPU.
    server_overhead: Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.
    pue: Power of the facility over that of its servers. Default: 1.3.
    hypothetical: Rank also what the engine cannot be started with.
    profile: Calibrated by your own runs: a profile that `apexsim calibrate save=NAME` kept.
    pareto: Plans that no other beats in two or three goals, e.g. tok/s/user,tok/s/GPU; also $, $/h, W, J, throughput, goodput, a
        latency (ttft:p99).
    rate_factor: What if requests came so many times as fast.
    prompt_factor: What if prompts were so many times as long.
    output_factor: What if outputs were so many times as long.
    classes: Classes of requests, whose limits slos then takes (chat:ttft:p95=500ms): a column of the trace, or prompt lengths:
        short:2k,long.
    prompt_cv: Standard deviation over mean of the prompt lengths, drawn from lengths: real traffic has 0.5 to 2.
    output_cv: The same of the output lengths.
    lengths: Distribution of prompt_cv and output_cv: lognormal (default), gamma or uniform.
    speculate: Drafts to search: METHOD:K or METHOD:K..K, with commas; a range is compared with none. Methods: mtp, eagle3, ngram, and
        draft with a model; e.g. mtp:1..4, draft:qwen3-0.6b:3, by sequences of a step mtp:3to32/1to128/0.
    acceptance: Accepted drafts: a share (0.8) or one by position (0.8,0.6,0.4), tokens of a step (length:2.3), a file
        (docs/drafting.md), or a measured model:task. Default: as was measured of the model or its like.
    disaggregate: Plans with a pool for prompts and one for tokens, too (3×TP4+DEP8): is it worth it?
    prefill_settings: Of the prefill pool alone: max-num-seqs=64,max-num-batched-tokens=16k.
    decode_settings: Of the decode pool alone.
    connector: What carries the cache between pools: nixl, mooncake (vLLM, SGLang) or ucx (TensorRT-LLM). Default: the engine's.
    conditional_disagg: Prompts that decode servers compute (vLLM): with fewer uncached tokens than TOKENS, and a smaller uncached
        SHARE; busy:STEPS: all while their prefill server has more than so many of its largest steps to compute. E.g. 2048,0.7.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    gpu_memory_utilization: Share of the GPU's memory that the engine may use. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    sampling: How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    ttft: Short for slos ttft:p95=MS: 95 of 100 requests get their first token in time.
    tpot: Short for slos tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.
    tune: Walk the engine's settings around the best plan: which are worth a flag, and why.
    sensitivity: Say what would change the winner: speeds, bandwidths, loads and lengths up to twice and half.
    headroom: Say of each plan shown, with lists of each combination, how many times the load it holds within the limits (without any:
        until its queue grows).
    workers: Threads, or tasks of Ray, at once; 0 takes the cores there are.
    ray: Search on Ray: started here, or the cluster at ADDRESS (HOST:PORT, ray://HOST:PORT, auto).
    progress: Called with (done, of how many, what).

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Study = _calls().call(plan, **locals())
    return answer


def simulate(
    model: str | Mapping[str, Any],
    plan: str = "",
    *,
    gpu: str | Mapping[str, Any],
    gpus: int | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    workload: str | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    prompt_len: int | None = None,
    output_len: int | None = None,
    num_requests: int | None = None,
    request_rate: float | None = None,
    burstiness: float | None = None,
    concurrency: int | None = None,
    seed: int | None = None,
    length_spread: float | None = None,
    warmup: int | None = None,
    engine: str = "vllm",
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    stages: str | None = None,
    shared_prefix: str | None = None,
    turns: int | None = None,
    turn_gap: float | None = None,
    images: int = 0,
    image_size: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    objective: str = "e2e",
    slos: str | Sequence[str] | None = None,
    route: str = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    power_cap: float | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    profile: str | None = None,
    rate_factor: float | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    prompt_cv: float | None = None,
    output_cv: float | None = None,
    lengths: str | None = None,
    acceptance: str | float | None = None,
    disaggregate: bool = False,
    prefill_settings: str | None = None,
    decode_settings: str | None = None,
    connector: str | None = None,
    conditional_disagg: str | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    gpu_memory_utilization: float | None = None,
    sampling: str | None = None,
    max_cudagraph_capture_size: int | None = None,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    steps: bool = False,
) -> Study:
    """Simulate one plan in full, beside the heuristic one.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    plan: As a study shows it: TP8, 2×TP4 (or 2xTP4), DP2TP4/TP8, DEP8 …; or by its widths.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    workload: Requests with the lengths of a known use: chat, rag, code, summary, agent, reasoning … (see: apexsim.workloads()), or of
        a .toml file.
    time_unit: Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    prompt_len: Synthetic requests: prompt tokens; 32k is 32,768.
    output_len: Synthetic requests: output tokens.
    num_requests: Synthetic requests: how many; 2k is 2,000. Default: 1,024.
    request_rate: Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no times. inf: all at once.
    burstiness: Shape of the gamma-distributed gaps; 1 is Poisson (default), below 1 burstier.
    concurrency: Closed loop: C users, each sends the next request when the last has finished.
    seed: Seed of lengths and arrivals. Default: 0.
    length_spread: Half width of the lengths over their mean. Default: 0; 0.1 with concurrency.
    warmup: Requests at the start that metrics leave out. Default: in a closed loop the first of each user, where that leaves as many;
        else 0.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    settings: Engine settings by their names in the engine's file: {'watermark': 0.02}.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    activation_dtype: Default: what the weights' kernels take.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    max_model_len: Longest prompt + output. Default: that of the workload, rounded up to 1,024.
    stages: Load in stages, RATE:SECONDS each: 3:20,10:20. A stage begins when the last request of the one before has ended.
    shared_prefix: A prefix in front of each prompt, drawn from COUNT of so many TOKENS: 2000x50; 2000x50:even uses each as often.
    turns: Requests are turns of sessions, N each: a prompt is all that was said so far, and prompt_len more.
    turn_gap: Seconds from an answer to the next turn. Default: 0.
    images: Images in every request (vision models): their tokens and encoding are added.
    image_size: Pixels of an image. Default: 1024x1024.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    expert_load: Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.
    too_long: Requests longer than the model length: error, drop or clip.
    objective: ttft, tpot, itl, e2e, each :mean, :p50, :p95 or :p99; throughput; goodput; cost; energy (of GPUs); wall-energy (of
        servers).
    slos: Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.
    route: How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, cache-aware, prefix-hash, llm-d,
        dynamo, session or session-hash (docs/caching.md).
    signal_age: Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; 0.1 of least-
        waiting.
    kv_offload: Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's peak),
        disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).
    power_cap: Mean power that each GPU may draw [W]; plans above it rank last, clock offers slower ones.
    risk: Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the median decides.
    price: Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' costs). Default: on-
        demand, for every GPU.
    server_overhead: Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.
    pue: Power of the facility over that of its servers. Default: 1.3.
    profile: Calibrated by your own runs: a profile that `apexsim calibrate save=NAME` kept.
    rate_factor: What if requests came so many times as fast.
    prompt_factor: What if prompts were so many times as long.
    output_factor: What if outputs were so many times as long.
    classes: Classes of requests, whose limits slos then takes (chat:ttft:p95=500ms): a column of the trace, or prompt lengths:
        short:2k,long.
    prompt_cv: Standard deviation over mean of the prompt lengths, drawn from lengths: real traffic has 0.5 to 2.
    output_cv: The same of the output lengths.
    lengths: Distribution of prompt_cv and output_cv: lognormal (default), gamma or uniform.
    acceptance: Accepted drafts: a share (0.8) or one by position (0.8,0.6,0.4), tokens of a step (length:2.3), a file
        (docs/drafting.md), or a measured model:task. Default: as was measured of the model or its like.
    disaggregate: Plans with a pool for prompts and one for tokens, too (3×TP4+DEP8): is it worth it?
    prefill_settings: Of the prefill pool alone: max-num-seqs=64,max-num-batched-tokens=16k.
    decode_settings: Of the decode pool alone.
    connector: What carries the cache between pools: nixl, mooncake (vLLM, SGLang) or ucx (TensorRT-LLM). Default: the engine's.
    conditional_disagg: Prompts that decode servers compute (vLLM): with fewer uncached tokens than TOKENS, and a smaller uncached
        SHARE; busy:STEPS: all while their prefill server has more than so many of its largest steps to compute. E.g. 2048,0.7.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    gpu_memory_utilization: Share of the GPU's memory that the engine may use. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    sampling: How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    ttft: Short for slos ttft:p95=MS: 95 of 100 requests get their first token in time.
    tpot: Short for slos tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.
    steps: Keep every batch of the run, for study.steps(), not an even sample of 2,048.

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Study = _calls().call(simulate, **locals())
    return answer


def sweep(
    model: str | Sequence[str],
    *,
    gpu: str | Sequence[str],
    gpus: int | Sequence[int] | None = None,
    nodes: int | Sequence[int] | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    workload: str | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    prompt_len: int | Sequence[int] | None = None,
    output_len: int | Sequence[int] | None = None,
    num_requests: int | Sequence[int] | None = None,
    request_rate: float | Sequence[float] | None = None,
    burstiness: float | None = None,
    concurrency: int | Sequence[int] | None = None,
    seed: int | None = None,
    length_spread: float | None = None,
    warmup: int | None = None,
    engine: str | Sequence[str] = "vllm",
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | Sequence[str] | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | Sequence[str] | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    stages: str | None = None,
    shared_prefix: str | None = None,
    turns: int | None = None,
    turn_gap: float | None = None,
    images: int = 0,
    image_size: str | None = None,
    quant: str | None = None,
    clock: str | None = None,
    tp: int | Sequence[int] | None = None,
    pp: int | Sequence[int] | None = None,
    dp: int | Sequence[int] | None = None,
    ep: int | Sequence[int] | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    objective: str = "e2e",
    slos: str | Sequence[str] | None = None,
    route: str | Sequence[str] = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    power_cap: float | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    hypothetical: bool = False,
    profile: str | None = None,
    pareto: str | None = None,
    rate_factor: float | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    prompt_cv: float | None = None,
    output_cv: float | None = None,
    lengths: str | None = None,
    speculate: str | None = None,
    acceptance: str | float | None = None,
    disaggregate: bool = False,
    prefill_settings: str | None = None,
    decode_settings: str | None = None,
    connector: str | None = None,
    conditional_disagg: str | None = None,
    max_num_seqs: int | Sequence[int] | None = None,
    max_num_batched_tokens: int | Sequence[int] | None = None,
    block_size: int | Sequence[int] | None = None,
    gpu_memory_utilization: float | Sequence[float] | None = None,
    sampling: str | Sequence[str] | None = None,
    max_cudagraph_capture_size: int | None = None,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    headroom: bool = False,
    workers: int = 0,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """The question of `plan` with lists of models, GPUs, counts, engines, settings or loads: every combination.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    workload: Requests with the lengths of a known use: chat, rag, code, summary, agent, reasoning … (see: apexsim.workloads()), or of
        a .toml file.
    time_unit: Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    prompt_len: Synthetic requests: prompt tokens; 32k is 32,768.
    output_len: Synthetic requests: output tokens.
    num_requests: Synthetic requests: how many; 2k is 2,000. Default: 1,024.
    request_rate: Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no times. inf: all at once.
    burstiness: Shape of the gamma-distributed gaps; 1 is Poisson (default), below 1 burstier.
    concurrency: Closed loop: C users, each sends the next request when the last has finished.
    seed: Seed of lengths and arrivals. Default: 0.
    length_spread: Half width of the lengths over their mean. Default: 0; 0.1 with concurrency.
    warmup: Requests at the start that metrics leave out. Default: in a closed loop the first of each user, where that leaves as many;
        else 0.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    settings: Engine settings by their names in the engine's file: {'watermark': 0.02}.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    activation_dtype: Default: what the weights' kernels take.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    max_model_len: Longest prompt + output. Default: that of the workload, rounded up to 1,024.
    stages: Load in stages, RATE:SECONDS each: 3:20,10:20. A stage begins when the last request of the one before has ended.
    shared_prefix: A prefix in front of each prompt, drawn from COUNT of so many TOKENS: 2000x50; 2000x50:even uses each as often.
    turns: Requests are turns of sessions, N each: a prompt is all that was said so far, and prompt_len more.
    turn_gap: Seconds from an answer to the next turn. Default: 0.
    images: Images in every request (vision models): their tokens and encoding are added.
    image_size: Pixels of an image. Default: 1024x1024.
    quant: Weight formats to search, e.g. auto,fp8,int4; auto is the checkpoint's own.
    clock: SM clocks to search [MHz], e.g. 810,1410,1980; the GPU's own is its highest.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    expert_load: Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.
    too_long: Requests longer than the model length: error, drop or clip.
    objective: ttft, tpot, itl, e2e, each :mean, :p50, :p95 or :p99; throughput; goodput; cost; energy (of GPUs); wall-energy (of
        servers).
    slos: Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.
    route: How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, cache-aware, prefix-hash, llm-d,
        dynamo, session or session-hash (docs/caching.md).
    signal_age: Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; 0.1 of least-
        waiting.
    kv_offload: Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's peak),
        disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).
    power_cap: Mean power that each GPU may draw [W]; plans above it rank last, clock offers slower ones.
    risk: Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the median decides.
    price: Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' costs). Default: on-
        demand, for every GPU.
    server_overhead: Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.
    pue: Power of the facility over that of its servers. Default: 1.3.
    hypothetical: Rank also what the engine cannot be started with.
    profile: Calibrated by your own runs: a profile that `apexsim calibrate save=NAME` kept.
    pareto: Plans that no other beats in two or three goals, e.g. tok/s/user,tok/s/GPU; also $, $/h, W, J, throughput, goodput, a
        latency (ttft:p99).
    rate_factor: What if requests came so many times as fast.
    prompt_factor: What if prompts were so many times as long.
    output_factor: What if outputs were so many times as long.
    classes: Classes of requests, whose limits slos then takes (chat:ttft:p95=500ms): a column of the trace, or prompt lengths:
        short:2k,long.
    prompt_cv: Standard deviation over mean of the prompt lengths, drawn from lengths: real traffic has 0.5 to 2.
    output_cv: The same of the output lengths.
    lengths: Distribution of prompt_cv and output_cv: lognormal (default), gamma or uniform.
    speculate: Drafts to search: METHOD:K or METHOD:K..K, with commas; a range is compared with none. Methods: mtp, eagle3, ngram, and
        draft with a model; e.g. mtp:1..4, draft:qwen3-0.6b:3, by sequences of a step mtp:3to32/1to128/0.
    acceptance: Accepted drafts: a share (0.8) or one by position (0.8,0.6,0.4), tokens of a step (length:2.3), a file
        (docs/drafting.md), or a measured model:task. Default: as was measured of the model or its like.
    disaggregate: Plans with a pool for prompts and one for tokens, too (3×TP4+DEP8): is it worth it?
    prefill_settings: Of the prefill pool alone: max-num-seqs=64,max-num-batched-tokens=16k.
    decode_settings: Of the decode pool alone.
    connector: What carries the cache between pools: nixl, mooncake (vLLM, SGLang) or ucx (TensorRT-LLM). Default: the engine's.
    conditional_disagg: Prompts that decode servers compute (vLLM): with fewer uncached tokens than TOKENS, and a smaller uncached
        SHARE; busy:STEPS: all while their prefill server has more than so many of its largest steps to compute. E.g. 2048,0.7.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    gpu_memory_utilization: Share of the GPU's memory that the engine may use. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    sampling: How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    ttft: Short for slos ttft:p95=MS: 95 of 100 requests get their first token in time.
    tpot: Short for slos tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.
    headroom: Say of each plan shown, with lists of each combination, how many times the load it holds within the limits (without any:
        until its queue grows).
    workers: Threads, or tasks of Ray, at once; 0 takes the cores there are.
    ray: Search on Ray: started here, or the cluster at ADDRESS (HOST:PORT, ray://HOST:PORT, auto).
    progress: Called with (done, of how many, what).

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Sweep = _calls().several(sweep, **locals())
    return answer


def size(
    model: str,
    *,
    gpu: str | Sequence[str] | None = None,
    gpus: int | Sequence[int] | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    workload: str | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    prompt_len: int | None = None,
    output_len: int | None = None,
    num_requests: int | None = None,
    request_rate: float | None = None,
    burstiness: float | None = None,
    concurrency: int | None = None,
    seed: int | None = None,
    length_spread: float | None = None,
    warmup: int | None = None,
    engine: str = "vllm",
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    shared_prefix: str | None = None,
    images: int = 0,
    image_size: str | None = None,
    quant: str | None = None,
    clock: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    slos: str | Sequence[str] | None = None,
    route: str = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    power_cap: float | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    profile: str | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    prompt_cv: float | None = None,
    output_cv: float | None = None,
    lengths: str | None = None,
    speculate: str | None = None,
    acceptance: str | float | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    gpu_memory_utilization: float | None = None,
    sampling: str | None = None,
    max_cudagraph_capture_size: int | None = None,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    find: str | None = None,
    think: float = 0.0,
    share: float = 0.95,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Size:
    """The question backwards: the most load, the fewest GPUs, the longest prompt, the tightest limit.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    workload: Requests with the lengths of a known use: chat, rag, code, summary, agent, reasoning … (see: apexsim.workloads()), or of
        a .toml file.
    time_unit: Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    prompt_len: Synthetic requests: prompt tokens; 32k is 32,768.
    output_len: Synthetic requests: output tokens.
    num_requests: Synthetic requests: how many; 2k is 2,000. Default: 1,024.
    request_rate: Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no times. inf: all at once.
    burstiness: Shape of the gamma-distributed gaps; 1 is Poisson (default), below 1 burstier.
    concurrency: Closed loop: C users, each sends the next request when the last has finished.
    seed: Seed of lengths and arrivals. Default: 0.
    length_spread: Half width of the lengths over their mean. Default: 0; 0.1 with concurrency.
    warmup: Requests at the start that metrics leave out. Default: in a closed loop the first of each user, where that leaves as many;
        else 0.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    settings: Engine settings by their names in the engine's file: {'watermark': 0.02}.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    activation_dtype: Default: what the weights' kernels take.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    max_model_len: Longest prompt + output. Default: that of the workload, rounded up to 1,024.
    shared_prefix: A prefix in front of each prompt, drawn from COUNT of so many TOKENS: 2000x50; 2000x50:even uses each as often.
    images: Images in every request (vision models): their tokens and encoding are added.
    image_size: Pixels of an image. Default: 1024x1024.
    quant: Weight formats to search, e.g. auto,fp8,int4; auto is the checkpoint's own.
    clock: SM clocks to search [MHz], e.g. 810,1410,1980; the GPU's own is its highest.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    expert_load: Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.
    too_long: Requests longer than the model length: error, drop or clip.
    slos: Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.
    route: How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, cache-aware, prefix-hash, llm-d,
        dynamo, session or session-hash (docs/caching.md).
    signal_age: Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; 0.1 of least-
        waiting.
    kv_offload: Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's peak),
        disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).
    power_cap: Mean power that each GPU may draw [W]; plans above it rank last, clock offers slower ones.
    risk: Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the median decides.
    price: Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' costs). Default: on-
        demand, for every GPU.
    server_overhead: Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.
    pue: Power of the facility over that of its servers. Default: 1.3.
    profile: Calibrated by your own runs: a profile that `apexsim calibrate save=NAME` kept.
    prompt_factor: What if prompts were so many times as long.
    output_factor: What if outputs were so many times as long.
    classes: Classes of requests, whose limits slos then takes (chat:ttft:p95=500ms): a column of the trace, or prompt lengths:
        short:2k,long.
    prompt_cv: Standard deviation over mean of the prompt lengths, drawn from lengths: real traffic has 0.5 to 2.
    output_cv: The same of the output lengths.
    lengths: Distribution of prompt_cv and output_cv: lognormal (default), gamma or uniform.
    speculate: Drafts to search: METHOD:K or METHOD:K..K, with commas; a range is compared with none. Methods: mtp, eagle3, ngram, and
        draft with a model; e.g. mtp:1..4, draft:qwen3-0.6b:3, by sequences of a step mtp:3to32/1to128/0.
    acceptance: Accepted drafts: a share (0.8) or one by position (0.8,0.6,0.4), tokens of a step (length:2.3), a file
        (docs/drafting.md), or a measured model:task. Default: as was measured of the model or its like.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    gpu_memory_utilization: Share of the GPU's memory that the engine may use. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    sampling: How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    ttft: Short for slos ttft:p95=MS: 95 of 100 requests get their first token in time.
    tpot: Short for slos tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.
    find: What is asked for: rate, users, gpus, context (longest prompt), or a statistic, the tightest limit that holds: ttft:p95.
        Default: gpus without gpus, else the kind of load that is given, else rate.
    think: Pause of a user between an answer and the next request [s].
    share: Of the requests that must keep the limits of each request (goodput).
    budget: Most rent of all GPUs together [$/h].
    progress: Called with (done, of how many, what).

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Size = _calls().several(size, **locals())
    return answer


def fleet(
    model: str | Mapping[str, Mapping[str, Any]],
    *,
    gpu: str | Mapping[str, Any] | Sequence[str],
    gpus: int | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    request_rate: float | None = None,
    engine: str = "vllm",
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    images: int = 0,
    image_size: str | None = None,
    quant: str | None = None,
    clock: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    slos: str | Sequence[str] | None = None,
    route: str = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    profile: str | None = None,
    rate_factor: float | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    gpu_memory_utilization: float | None = None,
    sampling: str | None = None,
    max_cudagraph_capture_size: int | None = None,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    every: str | float = "15min",
    policy: str = "all",
    start_up_time: str | float | None = None,
    hold: int = 2,
    spare: float = 0.0,
    min_replicas: int = 1,
    share: float = 0.95,
    workers: int = 0,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Fleet | SharedFleet:
    """Replicas over the time of a trace: how many each interval needs, and what following the load costs and misses.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    time_unit: Unit of the trace's times where the format does not say: ns, us, ms, s, clock; dates: mdy, dmy.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    request_rate: Requests per second, Poisson; stretches the arrivals of a trace, draws them where it has no times. inf: all at once.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    settings: Engine settings by their names in the engine's file: {'watermark': 0.02}.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    activation_dtype: Default: what the weights' kernels take.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    max_model_len: Longest prompt + output. Default: that of the workload, rounded up to 1,024.
    images: Images in every request (vision models): their tokens and encoding are added.
    image_size: Pixels of an image. Default: 1024x1024.
    quant: Weight formats to search, e.g. auto,fp8,int4; auto is the checkpoint's own.
    clock: SM clocks to search [MHz], e.g. 810,1410,1980; the GPU's own is its highest.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    expert_load: Load of experts: power_law_1.2 (default; balanced with one expert per token), … or a .json of counts.
    too_long: Requests longer than the model length: error, drop or clip.
    slos: Limits: ttft:p95=500ms on the run, ttft=500ms of each request (goodput). One, or several.
    route: How replicas share requests: round-robin, least-outstanding, power-of-two, least-waiting, cache-aware, prefix-hash, llm-d,
        dynamo, session or session-hash (docs/caching.md).
    signal_age: Seconds from one look of the router at the replicas to the next. Default: 0, a look for each request; 0.1 of least-
        waiting.
    kv_offload: Tiers behind the KV cache of each server, KIND:SIZE@RATE+LATENCY each: cpu:200GB (read at the slot's peak),
        disk:2TB@6GB/s, remote:10TB@7GB/s+27ms (docs/caching.md).
    risk: Chance of missing any limit that you allow, 0.05 say: plans that miss one more often rank last. Default: the median decides.
    price: Rent of one GPU [$/h], or a price book: on-demand and retail (rent), neocloud and hyperscaler (owners' costs). Default: on-
        demand, for every GPU.
    server_overhead: Power of fans, CPUs and supplies beside every 8 GPUs [W]. Default: 1,700.
    pue: Power of the facility over that of its servers. Default: 1.3.
    profile: Calibrated by your own runs: a profile that `apexsim calibrate save=NAME` kept.
    rate_factor: What if requests came so many times as fast.
    prompt_factor: What if prompts were so many times as long.
    output_factor: What if outputs were so many times as long.
    classes: Classes of requests, whose limits slos then takes (chat:ttft:p95=500ms): a column of the trace, or prompt lengths:
        short:2k,long.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    gpu_memory_utilization: Share of the GPU's memory that the engine may use. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    sampling: How tokens are chosen: greedy (default), top-p (or top-k) or penalties (beside them).
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    ttft: Short for slos ttft:p95=MS: 95 of 100 requests get their first token in time.
    tpot: Short for slos tpot:p95=MS: 95 of 100 requests get their further tokens at this pace.
    every: Length of an interval: 60s, 15min, 1h.
    policy: How replicas are asked for: instant (a bound), reactive, predictive, scheduled, fixed; several with commas.
    start_up_time: Until a replica that is asked for serves. Default: 60 s, and its weights at 2 GB/s.
    hold: Intervals for which a replica is kept that is no longer needed.
    spare: Replicas on top of what is needed, as a share.
    min_replicas: Replicas at any time.
    share: Of the requests that must keep the limits of each request (goodput).
    workers: Threads, or tasks of Ray, at once; 0 takes the cores there are.
    ray: Search on Ray: started here, or the cluster at ADDRESS (HOST:PORT, ray://HOST:PORT, auto).
    progress: Called with (done, of how many, what).

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Fleet | SharedFleet = _calls().several(fleet, **locals())
    return answer


def fit(
    model: str | Mapping[str, Any],
    *,
    gpu: str | Mapping[str, Any],
    gpus: int | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    plan: str | None = None,
    prompt_len: int | None = None,
    output_len: int | None = None,
    trace: str | Workload | Mapping[str, Any] | Sequence[Sequence[float]] | Any | None = None,
    workload: str | None = None,
    columns: str | None = None,
    engine: str = "vllm",
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    block_size: int | None = None,
    enforce_eager: bool = False,
    max_cudagraph_capture_size: int | None = None,
    gpu_memory_utilization: float | None = None,
    max_model_len: int | None = None,
    num_speculative_tokens: int | None = None,
    weight_dtype: str | None = None,
    dtype: str | None = None,
    kv_dtype: str | None = None,
) -> Fit:
    """Does it fit?  The memory of one GPU, KV tokens and users; nothing is simulated.

    model: Bundled name or alias, path of a config.json, hub id, or the keys of a config.json as a dict.
    gpu: GPU, e.g. h100-sxm (see: apexsim.gpus()), also with counts: h100:8; a .toml file; or the keys of such a file as a dict.
    gpus: GPUs per node, where gpu does not say it.
    nodes: Nodes. Default: 1.
    nic: Network between nodes, for each GPU: 400Gb (Gbit/s), 50GB/s, ndr; of a whole node: 400Gb/node, 4x100Gb. Default: what the
        GPU's file assumes; the answer says it.
    pcie: PCIe slot of each GPU: x8, gen4, 4.0x16. Default: as wide as the card.
    tp: Tensor parallel width of attention; replicas fill the rest.
    pp: Pipeline stages.
    dp: Attention lanes inside one replica of an expert model; otherwise replicas.
    ep: Parts over which experts are spread, 1: cut like other layers.
    enable_expert_parallel: Experts are spread over tp × dp instead of cut.
    plan: As a study shows it: TP8, 2×TP4 (or 2xTP4), DP2TP4/TP8, DEP8 …; or by its widths.
    prompt_len: Prompt tokens of a typical request. Default: 1,024, and as many of output.
    output_len: Output tokens of a typical request.
    trace: Requests: a file of any format, a Workload, a DataFrame or a dict of columns (arrive [s], prompt, output), or rows of
        (time, prompt, output).
    workload: Typical requests are those of a known use: chat, rag, code … (see: apexsim.workloads()), or of a .toml file.
    columns: Columns of another trace format: time=COLUMN,in=COLUMN,out=COLUMN.
    engine: Engine, at a version if wanted: vllm, sglang, tensorrt-llm (trtllm), vllm@0.19.0; policies: sarathi, orca, apex (apexsim
        engines on a command line). Its settings have its own words: docs/names.md.
    max_num_seqs: Sequences that run at once. SGLang: max_running_requests; TensorRT-LLM: max_batch_size.
    max_num_batched_tokens: Tokens of one step. SGLang: chunked_prefill_size; TensorRT-LLM: max_num_tokens.
    block_size: Tokens of a KV block. SGLang: page_size; TensorRT-LLM: tokens_per_block.
    enforce_eager: No CUDA graphs. SGLang: disable_cuda_graph.
    max_cudagraph_capture_size: Largest step that CUDA graphs hold, prompts among them where the engine captures these. SGLang:
        cuda_graph_max_bs.
    gpu_memory_utilization: The engine's own memory fraction, in its own meaning. SGLang: mem_fraction_static; TensorRT-LLM:
        kv_cache_free_gpu_memory_fraction.
    max_model_len: Longest prompt + output. Default: the model's.
    num_speculative_tokens: Draft tokens of the model's own multi-token-prediction layers.
    weight_dtype: bf16, fp16, fp32, fp8, int8, int4. Default: the checkpoint's.
    dtype: Format of the weights that the checkpoint leaves unquantised: bf16, fp16, fp32.
    kv_dtype: KV cache: bf16, fp16, fp32, fp8, int8. Default: the checkpoint's.

    Raises apexsim.InputError and apexsim.Infeasible, both apexsim.Error.
    """
    answer: Fit = _calls().fitted(fit, **locals())
    return answer


def models(name: str = "") -> list[dict[str, Any]]:
    """The models that are known, or those whose name holds a text, as dicts."""
    rows: list[dict[str, Any]] = _calls().catalogue("models", name)
    return rows


def gpus(name: str = "") -> list[dict[str, Any]]:
    """The gpus that are known, or those whose name holds a text, as dicts."""
    rows: list[dict[str, Any]] = _calls().catalogue("gpus", name)
    return rows


def workloads(name: str = "") -> list[dict[str, Any]]:
    """The workloads that are known, or those whose name holds a text, as dicts."""
    rows: list[dict[str, Any]] = _calls().catalogue("workloads", name)
    return rows


def calibrate(
    results: str | Sequence[str],
    *,
    model: str = "",
    plan: str = "",
    where: Mapping[str, str] | None = None,
    length_spread: float = 0.0,
    save_as: str = "",
    force: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    **question: Any,
) -> Calibration:
    """Fit factors on result files. model, plan: where the files do not say them; where: rows of a file of many systems, by "engine",
    "release", "model", "gpu", "formats"; length_spread: half width of lengths over their mean, where a file has only means; save_as:
    keep a profile of this name; question: keywords of `api.ask` for cluster, engine and precision. Raises InputError.
    """
    answer: Calibration = _calls().calibrated(
        calibrate,
        results,
        model=model,
        plan=plan,
        where=where,
        length_spread=length_spread,
        save_as=save_as,
        force=force,
        progress=progress,
        **question,
    )
    return answer
