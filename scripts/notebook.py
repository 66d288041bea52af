"""Write docs/notebook.ipynb: its cells below are run one after the other, and stand there with what they gave.

python scripts/notebook.py
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

from apexsim.report.picture import picture

PATH = Path(__file__).parent.parent / "docs/notebook.ipynb"
CELLS = (
    ("markdown", "# apexsim in a notebook\n\nMade by `python scripts/notebook.py`; a test runs the cells again."),
    ("code", "import apexsim\n\nstudy = apexsim.plan(\"llama-3.1-70b-instruct\", gpu=\"h100-sxm\", gpus=8, workload=\"chat\",\n"
             "                     request_rate=4, num_requests=400, ttft=\"1s\", tpot=40)\nstudy"),
    ("markdown", "Every plan as a DataFrame (a list of dicts without pandas); `study.best` is the best that can be started."),
    ("code", "study.table()[[\"plan\", \"keeps\", \"ttft_p95_ms\", \"tpot_p95_ms\", \"output_tok_s_per_gpu\"]].head(5)"),
    ("code", "study.plot()"),
    ("markdown", "Lists ask the question with each value."),
    ("code", "settings = apexsim.sweep(\"llama-3.1-8b-instruct\", gpu=\"h100:1\", prompt_len=4000, output_len=200, request_rate=3,\n"
             "                         num_requests=200, max_num_batched_tokens=[1024, 2048, 8192])\n"
             "settings.table()[[\"max_num_batched_tokens\", \"ttft_p95_ms\", \"itl_p99_ms\"]]"),
    ("markdown", "The question backwards: how much does it hold?"),
    ("code", "apexsim.size(\"llama-3.1-8b-instruct\", gpu=\"l40s\", gpus=1, prompt_len=500, output_len=100, num_requests=500, ttft=500)"),
    ("markdown", "Requests of your own: a DataFrame or a dict of columns. What happened to each stands in `requests()`."),
    ("code", "mine = {\"arrive\": [0.0, 0.1, 0.2, 5.0], \"prompt\": [800, 200, 3000, 500], \"output\": [100, 20, 60, 40]}\n"
             "run = apexsim.simulate(\"llama-3.1-8b-instruct\", \"TP1\", gpu=\"l4:1\", trace=mine)\nrun.requests().round(3)"),
    ("markdown", "Models and GPUs may be dicts, and every error is an `apexsim.Error`."),
    ("code", "card = {\"base\": \"h100-sxm\", \"name\": \"half\", \"memory\": {\"total_gib\": 40}}\n"
             "try:\n    apexsim.plan(\"llama-3.1-70b-instruct\", gpu=card, gpus=2, prompt_len=100, output_len=10)\n"
             "except apexsim.Error as error:\n    print(error)"),
)  # fmt: skip


def executed() -> dict[str, Any]:
    """The notebook, run."""
    names: dict[str, Any] = {}
    cells = [_cell(kind, text, names) for kind, text in CELLS]
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 4}


def _cell(kind: str, text: str, names: dict[str, Any]) -> dict[str, Any]:
    lines = text.splitlines(keepends=True)
    if kind == "markdown":
        return {"cell_type": kind, "metadata": {}, "source": lines}
    return {"cell_type": kind, "execution_count": None, "metadata": {}, "outputs": list(_outputs(text, names)), "source": lines}


def _outputs(text: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints, and its last expression."""
    body = ast.parse(text).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)})
    if value is not None:
        found.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": _shown(value)})
    return found


def _shown(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    page = value._repr_html_() if hasattr(value, "_repr_html_") else None
    if page:
        data["text/html"] = page.splitlines(keepends=True)
    if type(value).__name__ == "Figure":
        data["image/png"] = base64.b64encode(picture(value, "x.png")).decode()
    return data


if __name__ == "__main__":
    PATH.write_text(json.dumps(executed(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
