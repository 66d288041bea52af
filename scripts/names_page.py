"""Write docs/names.md from the tables of names: python scripts/names_page.py > docs/names.md"""

from __future__ import annotations

import sys

from apexsim.cli.names import EVERYWHERE, NAMES, OF_ENGINES, TOTAL, VERSION, engines_with_words
from apexsim.cli.names import MODEL as MODEL_ARGUMENT
from apexsim.engines import facts, flags_of

HEAD = """# Names from other tools

Written by `scripts/names_page.py` from the tables in `src/apexsim/cli/names.py` and `src/apexsim/data/engines`; a test keeps them equal.

What people type for vLLM's and SGLang's benchmarks, aiconfigurator, GuideLLM and the engines works here, in every command that has
the option. The help shows our own names only, and so do the lines that a report suggests. `--max_num_seqs` is read as
`--max-num-seqs`. Two spellings of one option with two values are refused. In Python each keyword has one name.

**Counts.** `k` and `M` may follow a whole number: of tokens they are 1,024 and 1,048,576 (a context of 32k is 32,768, InferenceX's
1k/1k is 1,024/1,024; vLLM itself reads `32k` as 32,000 and `32K` as 32,768), of requests and users 1,000 and 1,000,000.

**Clusters.** `--gpu h100:8`, `8xh100`, `h100x8` and `2x8xh100` (nodes × GPUs × name) hold the counts themselves.

**GPUs.** Any spelling that vendors, clouds and forums use: `H100-SXM5-80GB`, `4090`, `4090-48gb`, `5060 Ti 16GB`, `a800`, `910b`,
`strix-halo`, `NVIDIA A100-SXM4-80GB`; `apexsim gpus TEXT` finds them and prints their notes. A MIG slice is its card with a profile:
`h100:3g.40gb`, `h100-mig-3g.40gb`, `2xh100:3g.40gb`, or as `nvidia-smi -L` writes it.

**Links.** `--nic 400Gb` is 400 Gbit/s for each GPU (`400Gbps`, `50GB/s`, `ndr`); `400Gb/node` and `4x100Gb` are a node's, divided over its
GPUs. `--pcie x8`, `gen4`, `4.0x16` is the slot of each card.

**Plans.** `TP8`, `2×TP4` or `2xTP4`, `PP2×TP4`, also as `tp8`, `PP4`, `TP4PP2`, `tp4 pp2`.
"""
SPECIAL = {
    TOTAL: "`--gpus` and `--nodes`: up to 8 in one node, else nodes of 8, or what `--nodes` leaves",
    VERSION: "the version in `--engine NAME@VERSION`",
    MODEL_ARGUMENT: "the argument MODEL",
}
NOTES = {
    "--random-range-ratio": "refused: it has two meanings (SGLang: lengths of R × L to L; vLLM: of (1 − R) × L to (1 + R) × L)",
    "--quantization": "`--weight-dtype`, its values in our words: awq, gptq, fp8, bitsandbytes, modelopt_fp4 …",
    "--kv-cache-dtype": "`--kv-dtype`; auto is the checkpoint's",
}


def meaning(flag: str, option: str) -> str:
    """Our option, as a cell of a table."""
    return NOTES.get(flag) or SPECIAL.get(option) or f"`--{option.replace('_', '-')}`"


def page() -> str:
    """The whole page."""
    lines = [HEAD, "| name | whose | here |", "|---|---|---|"]
    lines += [f"| `{row.flag}` | {row.whose} | {meaning(row.flag, row.option)} |" for row in NAMES]
    engines = engines_with_words()
    lines += ["", "## Settings in each engine's own words", "", SETTINGS, ""]
    lines += [f"| here | {' | '.join(str(facts(name)['about']) for name in engines)} |", "|---" * (1 + len(engines)) + "|"]
    for setting, (option, _) in OF_ENGINES.items():
        words = (flags_of(name).get(setting) for name in engines)
        cells = " | ".join(f"`{word}`" if word else "" for word in words)
        lines.append(f"| `--{option.replace('_', '-')}` | {cells} |")
    return "\n".join(lines) + "\n"


SETTINGS = f"""A word acts on the engine that has it; with another engine it is refused, and the line says that engine's
word: what sounds alike means different things (the three memory fractions, sequences per lane or in all).
{", ".join(f"`{flag}`" for flag in EVERYWHERE)} says the same everywhere. Policies (sarathi, orca, apex) take vLLM's words.
`--chunked-prefill-size -1` is SGLang's `--no-enable-chunked-prefill`."""

if __name__ == "__main__":
    sys.stdout.write(page())
