"""An engine: one file in the folder of $APEXSIM_ENGINES, and every command knows it."""

import os
from pathlib import Path

os.environ["APEXSIM_ENGINES"] = str(Path(__file__).parent / "engines")

import apexsim
from apexsim.report.launch import launch

study = apexsim.plan("llama-3.1-8b", gpu="h100-sxm", gpus=2, prompt_len=500, output_len=100, num_requests=64, engine="nimble@2.1")
best = study.ranked[0]
print(best.plan.shorthand, *launch(study.setting, best.plan).commands, sep="\n")
assert study.setting.engine.memory_fraction == 0.85 and "nimble serve --checkpoint" in launch(study.setting, best.plan).script
