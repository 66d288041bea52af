"""The command `web`: the page with a form, and the interface for programs (floor 7)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import say, settle
from apexsim.errors import InputError

NEEDED = ("starlette", "uvicorn", "h11")
WEB_HELP = """Serve the page with a form: model, cluster, requests, limits; answers come with progress, and a link repeats the question.

Needs starlette and uvicorn: pip install 'apexsim[web]'.  Programs ask under /api, which /api/openapi.json describes (docs/web.md).
Only this machine can reach it, unless --host says otherwise.

Examples:

  apexsim web

  apexsim web --port 8080 --jobs 2 --timeout 300
"""


@with_options("web")
def web(**given: Any) -> None:
    """Serve until Ctrl-C."""
    settle()
    given = checked("web", given)
    if not all(map(find_spec, NEEDED)):
        raise InputError("the page needs starlette and uvicorn, which are not installed", "", "pip install 'apexsim[web]'")
    from apexsim.web.limits import Limits
    from apexsim.web.serve import serve

    limits = Limits(seconds=given["timeout"], jobs=given["jobs"], gpus=given["max_gpus"])
    serve(limits, given["host"], given["port"], say, tuple(given["allow_host"]))


HELP = {"web": WEB_HELP}
RUN = {"web": web}
