"""Which measured table speaks for which kernel: the choices behind `build_kernels.py`, one row each.

Tables are keyed by kernel and number format, not by framework, because a framework's table is not always what that
framework runs: some were timed without CUDA graphs, some hold a quantisation kernel beside the GEMM.  Each row names
where the points come from and why.  `source` is the engine whose kernel it is (vllm, sglang, trtllm) or "any".
"""

from __future__ import annotations

from dataclasses import dataclass

MODERN = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300", "l40s", "rtx_pro_6000_server")
CENTRE = ("b200_sxm", "b300_sxm", "gb200", "gb300")  # Blackwell of data centres
BLACKWELL = (*CENTRE, "rtx_pro_6000_server")
DEEPGEMM = ("h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm", "gb200", "gb300")
SYSTEMS = ("a100_sxm", *MODERN, "b60")
NAMES = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "sq": "int8"}


@dataclass(frozen=True, slots=True)
class GemmRow:
    """One GEMM table: the kernel and source it is filed under, the folder and format it is read from.

    less: kernels of the same release that were timed with the GEMM and are taken off, by their (m, k).
    """

    kernel: str
    source: str
    systems: tuple[str, ...]
    folder: str
    dtype: str
    note: str
    less: tuple[str, ...] = ()


GEMM = (
    GemmRow("bf16", "any", MODERN, "sglang/0.5.14", "bfloat16", "frameworks agree within 3-5 %"),
    GemmRow("bf16", "any", ("a100_sxm",), "sglang/0.5.10", "bfloat16", "frameworks agree within 3-5 %"),
    GemmRow("bf16", "any", ("b60",), "vllm/0.20.0", "bfloat16", "the fuller of the two releases"),
    GemmRow("fp8", "sglang", MODERN, "sglang/0.5.14", "fp8", "bare GEMM: operands already quantised"),
    GemmRow("fp8", "vllm", MODERN, "vllm/0.24.0", "fp8", "bare GEMM: operands already quantised"),
    GemmRow("fp8", "trtllm", MODERN, "trtllm/1.3.0rc20", "fp8", "static scales: dynamic quantisation taken off",
            ("computescale_perf", "scale_matrix_perf")),
    GemmRow("fp8", "vllm", ("b60",), "vllm/0.20.0", "fp8", "no native FP8 units: multiplies in 16 bit"),
    GemmRow("fp8_block", "any", DEEPGEMM, "sglang/0.5.14", "fp8_block", "DeepGEMM; vLLM's was timed without graphs"),
    GemmRow("fp8_block", "any", ("l40s", "rtx_pro_6000_server"), "trtllm/1.3.0rc20", "fp8_block",
            "no DeepGEMM there; the other tables were timed without graphs"),
    GemmRow("nvfp4", "any", BLACKWELL, "sglang/0.5.14", "nvfp4", "bare GEMM; TensorRT-LLM's holds quantisation"),
    GemmRow("int8", "any", ("a100_sxm",), "trtllm/1.0.0", "sq", "SmoothQuant plugin, timer resolution 1 us"),
)  # fmt: skip

# Attention: folder per system and engine; where several kernels were timed for one key, the first of KERNEL_ORDER that
# matches is the one the engine picks by default (never the fastest of them).
ATTENTION = {
    **{(s, e): f for s in MODERN for e, f in
       (("vllm", "vllm/0.24.0"), ("sglang", "sglang/0.5.14"), ("trtllm", "trtllm/1.3.0rc20"))},
    ("a100_sxm", "vllm"): "vllm/0.14.0",
    ("a100_sxm", "sglang"): "sglang/0.5.10",
    ("a100_sxm", "trtllm"): "trtllm/1.0.0",
    ("b60", "vllm"): "vllm/0.26.0",
}  # fmt: skip
KERNEL_ORDER = ("trtllm", "fa3", "flash", "torch_flow", "flashinfer", "triton")
# (kv format, engine) -> formats of the multiplication, best known first: FP8 attention where the engine has it.
ATTENTION_DTYPES = {
    ("bf16", "vllm"): ("bfloat16",), ("bf16", "sglang"): ("bfloat16",), ("bf16", "trtllm"): ("bfloat16",),
    ("fp8", "vllm"): ("bfloat16",), ("fp8", "sglang"): ("fp8", "bfloat16"), ("fp8", "trtllm"): ("fp8", "bfloat16"),
}  # fmt: skip

# Collectives: the newest release of each library and engine that was timed on the system.
NCCL = {
    "a100_sxm": "nccl/2.27.3", "h100_sxm": "nccl/2.29.2", "h200_sxm": "nccl/2.29.2", "b200_sxm": "nccl/2.29.2",
    "b300_sxm": "nccl/2.29.2", "gb200": "nccl/2.29.2", "gb300": "nccl/2.29.2", "l40s": "nccl/2.27.3",
    "rtx_pro_6000_server": "nccl/2.29.2", "b60": "oneccl/2021.15.9",
}  # fmt: skip
KINDS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}
SENDRECV = {"h100_sxm": "H100-SXM-80GB", "h200_sxm": "H200-SXM-141GB"}

# Quantisation of activations: the static kernel, and what a dynamic scale costs on top of it.
QUANTISE = {"static": ("vllm/0.24.0", "scale_matrix_perf"), "scale": ("vllm/0.24.0", "computescale_perf")}

# Experts: folders in order, the first that timed a key speaks; an older release only fills in INT4, where it is the same kernel.  vLLM's is
# not: its INT4 function of 0.19 takes 2 to 4 times as long as the Marlin experts of 0.24 on the same GPU, and longer than 16 bit.  Marlin
# was timed on Blackwell for one model's layers only, 4 to 10 % faster than on an H200: all others are those of the H200.
MARLIN = (("h200_sxm:sglang/0.5.14", ("int4_wo",)), ("h200_sxm:sglang/0.5.10", ("int4_wo",)))
MOE = {
    **{(s, e): f for s in MODERN for e, f in (
        ("vllm", (("vllm/0.24.0", None), *(MARLIN if s in CENTRE else ()))),
        ("sglang", (("sglang/0.5.14", None), ("sglang/0.5.10", ("int4_wo",)))),
        ("trtllm", (("trtllm/1.3.0rc20", None), ("trtllm/1.3.0rc23", None))))},
    ("a100_sxm", "vllm"): (("vllm/0.14.0", None),),
    ("a100_sxm", "sglang"): (("sglang/0.5.10", None),),
    ("a100_sxm", "trtllm"): (("trtllm/1.0.0", None),),
    ("b60", "vllm"): (("vllm/0.26.0", None),),
}  # fmt: skip
MOE_NAMES = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int4_wo": "w4a16",
             "w4a16_mxfp4": "w4a16_mxfp4", "w4a8_mxfp4_mxfp8": "w4a8_mxfp4"}  # fmt: skip
LOADS = {"balanced": 0, "power_law_1.01": 101, "power_law_1.2": 120}
# (format, kernel) -> variant.  TensorRT-LLM has two NVFP4 kernels for one key; its Blackwell backend ("TRTLLM") runs the one filed first.
# SGLang multiplies INT4 experts with trtllm-gen on Blackwell, vLLM with Marlin on every GPU: two kernels that say nothing of each other.
MOE_VARIANTS = {("nvfp4", "moe_torch_flow_min_latency"): "trtllm-gen", ("int4_wo", "sglang_flashinfer_trtllm_moe"): "trtllm-gen"}
# Kernels that are not what an engine runs by default: TensorRT-LLM multiplies block FP8 experts with trtllm-gen on data
# centre Blackwell (MoeConfig.backend), but DeepGEMM was timed; the tables of SGLang and vLLM hold that kernel there.
MOE_LEFT_OUT = ("deepgemm",)
# Experts of a rank that only gets the tokens sent to it (wide expert parallelism): engine -> folder, file by phase.  TensorRT-LLM's
# with as many slots as experts; "eplb" (copies dealt by load) stands for an even load there, which it has no table of.
LOCAL = {
    "sglang": ("sglang/0.5.10", {"decode": "wideep_generation_moe_perf", "prefill": "wideep_context_moe_perf"}),
    "trtllm": ("trtllm/1.3.0rc10", {"decode": "wideep_moe_perf", "prefill": "wideep_moe_perf"}),
}
LOCAL_LOADS = {"uniform": 0, "power_law_1.01_eplb": 0, "power_law_1.01": 101, "power_law_1.2": 120}
# Experts without a gate: by kernel, and by the layers of models that have them.
NONGATED_TOP_K, NONGATED_INNER = 22, 1856

# Expert-parallel dispatch and combine (DeepEP), microseconds: (mode, engine) -> folder, file, ranks per node, nodes.
# Several nodes were timed by one older release only.  20 streaming multiprocessors are DeepEP's default.
DISPATCH_SMS = 20
DISPATCH = (
    ("ll", "sglang/0.5.12", "wideep_deepep_ll_perf", (1,)),
    ("ht", "sglang/0.5.12", "wideep_deepep_normal_perf", (1,)),
    ("ll", "sglang/0.5.6.post2", "wideep_deepep_ll_perf", (2, 4, 8)),
    ("ht", "sglang/0.5.6.post2", "wideep_deepep_normal_perf", (2, 4, 8)),
)

# Latent attention without its projections: TensorRT-LLM's tables stand for all engines.  SGLang's agree within 10 % on
# Blackwell and in bf16 decode; its Hopper prefill was timed in absorbed form (3 times the work), its Hopper FP8 decode
# converts the whole cache (up to 8 times slower): not what the engines run.  vLLM timed whole modules only.
PHASES = {"prefill": "context", "decode": "generation"}  # ours -> the source's
MLA = ("trtllm",)
LATENT_DIM, EXPANDED_DIM = 576, 192

# Scans: the two kernels whose times add up to the mixer.  vLLM's KDA convolution was timed with its Python, so SGLang's
# kernels serve all; the Mamba2 tables hold the convolution only and are left out.
SCANS = {
    ("gdn", "vllm"): ("linear_attention/vllm", "gdn_perf"), ("gdn", "sglang"): ("linear_attention/sglang", "gdn_perf"),
    ("gdn", "trtllm"): ("linear_attention/trtllm", "gdn_perf"), ("kda", "sglang"): ("kda/sglang", "kda_perf"),
}  # fmt: skip
SCAN_KERNELS = {"prefill": ("causal_conv1d_fn", "chunk_"), "decode": ("causal_conv1d_update", "fused_recurrent")}

PEAKS = {"float32_tc_flops": "fp32", "bfloat16_tc_flops": "bf16", "fp8_tc_flops": "fp8", "int8_tc_flops": "int8",
         "fp4_tc_flops": "fp4"}  # fmt: skip
# V100-PCIE-16GB data sheet (NVIDIA, 2018): 112 TFLOP/s FP16 with tensor cores, 14 TFLOP/s FP32, 900 GB/s, PCIe 3.0 x16.
V100_PEAKS = {"flops": {"fp32": 14.0e12, "bf16": 112.0e12}, "bandwidth": 900e9, "link": 16e9}
