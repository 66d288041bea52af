"""The entry point: options in, an exit code out (floor 7).

Exit codes: 0 done, 2 the request cannot be read or used, 3 it is sound but nothing the user has can serve it,
130 interrupted.  Each failure is one line on standard error.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

import apexsim
from apexsim.cli.apex import spelled
from apexsim.cli.commands import ABOUT_GROUP, HELP, INTERRUPTED, RUN
from apexsim.cli.options import addressed
from apexsim.cli.outside import say
from apexsim.errors import Infeasible, InputError, nearest

BAD_INPUT, INFEASIBLE = 2, 3
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[
    2
]  # the parent of all complaints about usage, whoever supplies it

ABOUT = """Plan and predict LLM serving: every parallel plan, simulated request by request, ranked.

Start with:  apexsim plan llama-3.1-70b --gpu h100-sxm --gpus 8 --trace examples/creation_05.jsonl
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"apexsim {apexsim.__version__}")
        raise typer.Exit()


def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command."""


def application() -> typer.Typer:
    """All commands."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", help=ABOUT,
                      context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip
    app.callback(help=ABOUT)(_top)
    groups = {name: typer.Typer(help=about, rich_markup_mode="rich") for name, about in ABOUT_GROUP.items()}
    for name, run in RUN.items():
        group, _, word = name.rpartition(" ")
        (groups[group] if group else app).command(word, help=HELP[name])(run)
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    warnings.simplefilter("ignore")  # of libraries: what matters is said by this program itself
    words = _spelled(list(sys.argv[1:] if arguments is None else arguments)) or ["--help"]
    words += ["--help"] if len(words) == 1 and words[0] in ABOUT_GROUP else []
    try:
        words = [words[0], *spelled(words[1:])] if words[0] == "apex" else words
        code = application()(args=addressed(words), standalone_mode=False, prog_name="apexsim")
    except InputError as error:
        return _fail(error.line(), BAD_INPUT)
    except Infeasible as error:
        return _fail(str(error), INFEASIBLE)
    except USAGE_ERROR as error:
        return _fail(_usage(error, words), BAD_INPUT)
    except MemoryError:
        return _fail("not enough memory for this question; try fewer requests or a smaller token budget", BAD_INPUT)
    except RecursionError:
        return _fail("the input is nested too deeply", BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:  # a full disk under standard output, a name that is too long
        _drop_output()
        told = error.strerror or type(error).__name__
        return _fail(f"{error.filename}: {told}" if error.filename else told, BAD_INPUT)
    if code == INTERRUPTED:
        return _fail("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """What is left to be written cannot be: let nothing try again at the end."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int) -> int:
    say("apexsim: " + " ".join(line.split()))
    return code


def _spelled(words: list[str]) -> list[str]:
    """Options as engines also spell them: --max_num_seqs is --max-num-seqs."""
    return [re.sub(r"^--\w[^=]*", lambda m: m[0].replace("_", "-"), word) for word in words]


def _usage(error: Exception, words: list[str]) -> str:
    """A complaint about usage in one line, with what to try."""
    text = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in (*RUN, *ABOUT_GROUP)), "")
    unknown = re.match(r"No such command '(.*)'", text)
    names = [name.split()[-1] for name in RUN if not command or name.startswith(command)]
    hint = nearest(unknown[1], names) if unknown else ""
    known = re.search(r" \(Possible options: (.*)\)$|\s*Did you mean (.*)\?$", text)
    if known:
        text, hint = text[: known.start()].rstrip("."), f"did you mean {(known[1] or known[2])}?"
    help_line = " ".join(["see: apexsim", *([command] if command else []), "--help"])
    return "; ".join(part for part in (text[:1].lower() + text[1:], hint, help_line) if part)


if __name__ == "__main__":
    sys.exit(main())
