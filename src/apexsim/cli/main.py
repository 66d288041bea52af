"""The entry point: options in, an exit code out (floor 7).

Exit codes: 0 done, 2 the request cannot be read or used, 3 it is sound but nothing the user has can serve it, 4 it was
answered, but no plan keeps the limits, 130 interrupted.  Each failure is one line on standard error.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.main import get_command

import apexsim
from apexsim.cli.apex import spelled
from apexsim.cli.commands import ABOUT_GROUP, HELP, INTERRUPTED, MISSED, RUN
from apexsim.cli.notmodelled import modelled
from apexsim.cli.outside import DELIVERED, Life, drop, open_streams, say, tame_environment
from apexsim.cli.words import json_on_stdout, translated
from apexsim.errors import Infeasible, InputError, Stopped, Unkept, shortened
from apexsim.examples import packaged

BAD_INPUT, INFEASIBLE = 2, 3
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # the parent of all complaints about usage, whoever supplies it

SIMULATING = ("plan", "simulate", "size", "fleet", "apex", "validate")  # always, where the input is sound

ABOUT = """Plan and predict LLM serving: every parallel plan, simulated request by request, ranked.

Start with:  apexsim plan llama-3.1-70b --gpu h100-sxm --gpus 8 --trace example:creation

Exit codes: 0 done; 2 bad input; 3 nothing fits; 4 no plan keeps the limits; 130 interrupted.
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"apexsim {apexsim.__version__}")
        raise typer.Exit()


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Options before a command."""


def application() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        pretty_exceptions_enable=False, rich_markup_mode="rich", help=ABOUT, context_settings={"help_option_names": ["-h", "--help"]}
    )
    app.callback(help=ABOUT)(_top)
    groups = {name: typer.Typer(help=about, rich_markup_mode="rich") for name, about in ABOUT_GROUP.items()}
    for name, run in RUN.items():
        group, _, word = name.rpartition(" ")
        (groups[group] if group else app).command(word, help=HELP[name])(run)
    for name, group_app in groups.items():
        app.add_typer(group_app, name=name)
    return app


@cache
def everything() -> Any:
    """All commands as one, for its parser: the words of its help are shown as they are, not read as markup."""
    found = get_command(application())
    _literal(found)
    return found


def _literal(part: Any) -> None:
    """Escape what rich would take for markup in the help of a command, of its parameters and of its sub-commands."""
    for name in ("help", "short_help", "epilog", "metavar"):
        if getattr(part, name, None):
            setattr(part, name, escape(getattr(part, name)))
    for inner in [*getattr(part, "params", ()), *getattr(part, "commands", {}).values()]:
        _literal(inner)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed: exit code, the kind of failure in a word, and what an `InputError` says."""

    code: int
    kind: str
    message: str
    where: str = ""
    hint: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """All of it in one line."""
        told = "; ".join(filter(None, (self.message, self.hint)))
        return f"{self.where}: {told}" if self.where else told

    def tell(self, json: bool) -> int:
        """One line on standard error, and JSON where that was asked for; the exit code."""
        say("apexsim: " + " ".join(self.line.split()))
        if json and "--json" not in DELIVERED:
            from apexsim.report.jsonout import error_json
            from apexsim.report.plain import dumps

            with contextlib.suppress(OSError, ValueError):
                sys.stdout.write(dumps(error_json(self.code, self.kind, self.message, self.where, self.hint, self.record)))
                sys.stdout.flush()
        return self.code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    open_streams()
    tame_environment()
    DELIVERED.clear()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    warnings.simplefilter("ignore")  # of libraries: what matters is said by this program itself
    words = _asked_for_help(_spelled(list(sys.argv[1:] if arguments is None else arguments)))
    for path in filter(packaged, words):
        say(f"apexsim: {path}: there is no such file here, the one that comes with apexsim is used")
    found = _run(words)
    return found.tell(json_on_stdout(words)) if isinstance(found, Failure) else found


def _run(words: list[str]) -> int | Failure:
    """Run a command: its exit code, or why it failed."""
    spelled_as: dict[str, str] = {}
    try:
        command, rest = split(words)
        if command:
            rest, spelled_as = translated(command, spelled(rest) if command == "apex" else modelled(command, rest))
        with Life(f"{command or 'apexsim'} is running", command in SIMULATING):
            code = everything()(args=[*command.split(), *rest], standalone_mode=False, prog_name="apexsim")
    except InputError as error:
        return Failure(BAD_INPUT, "bad input", error.what, spelled_as.get(error.where, error.where), error.hint, error.record)
    except Unkept as error:
        return Failure(MISSED, "infeasible", error.reason, "", error.nearest, error.record)
    except Infeasible as error:
        return Failure(INFEASIBLE, "infeasible", error.reason, "", error.nearest, error.record)
    except USAGE_ERROR as error:
        return _usage(error, words)
    except MemoryError:
        return Failure(BAD_INPUT, "bad input", "not enough memory for this question", "", "try fewer requests or a smaller token budget")
    except RecursionError:
        return Failure(BAD_INPUT, "bad input", "the input is nested too deeply")
    except Stopped as stop:
        return Failure(INTERRUPTED, "interrupted", "interrupted", record=stop.record)
    except (KeyboardInterrupt, typer.Abort):
        return Failure(INTERRUPTED, "interrupted", "interrupted")
    except BrokenPipeError:
        drop(sys.stdout)
        return 0
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # the printer of the help makes it an error
            return 0
        raise
    except OSError as error:  # a full disk under standard output, a name that is too long
        drop(sys.stdout)
        told = error.strerror or type(error).__name__
        return Failure(BAD_INPUT, "bad input", shortened(told), shortened(str(error.filename or "")))
    if code == INTERRUPTED:  # what was done by then has been told
        say("apexsim: interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _asked_for_help(words: list[str]) -> list[str]:
    """`help X` as X --help, `version` as --version, and a group alone as its help."""
    if not words or words == ["help"]:
        return ["--help"]
    if words[0] == "help":
        return [*words[1:], "--help"]
    if words == ["version"]:
        return ["--version"]
    return [*words, "--help"] if len(words) == 1 and words[0] in ABOUT_GROUP else words


def split(words: list[str]) -> tuple[str, list[str]]:
    """The command, "" where none is known, and what follows it."""
    command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in RUN), "")
    return command, words[len(command.split()) :]


def _spelled(words: list[str]) -> list[str]:
    """Options as engines also spell them: --max_num_seqs is --max-num-seqs."""
    return [re.sub(r"^--\w[^=]*", lambda m: m[0].replace("_", "-"), word) for word in words]


def _usage(error: Exception, words: list[str]) -> Failure:
    """A complaint about usage, with what to try."""
    text = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    command = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in (*RUN, *ABOUT_GROUP)), "")
    unknown = re.match(r"No such command '(.*?)'(?:\.|$)", text, re.DOTALL)
    known = re.search(r" \(Possible options: (.*)\)$|\s*Did you mean (.*)\?$", text)
    hint = f"did you mean {known[1] or known[2]}?" if known else ""
    if unknown:
        text, hint = f"no such command '{unknown[1]}'", _commands_near(unknown[1], command)
    elif known:
        text = text[: known.start()].rstrip(".")
    elif text.startswith("Missing argument") and (taken := _taken_by_json(words)):
        hint = f"'{taken}' was read as the file of --json: write --json=-"
    help_line = " ".join(["see: apexsim", *([command] if command else []), "--help"])
    return Failure(BAD_INPUT, "bad input", shortened(text[:1].lower() + text[1:]), "", "; ".join(filter(None, (hint, help_line))))


def _commands_near(word: str, group: str) -> str:
    """The commands of the same level that look like a word; all of them where none does."""
    level = [name.removeprefix(group).split() for name in (*RUN, *ABOUT_GROUP) if name.startswith(f"{group} " if group else "")]
    names = sorted({name[0] for name in level if name})
    close = difflib.get_close_matches(word.lower(), names, n=3, cutoff=0.6)
    return f"did you mean {', '.join(repr(name) for name in close)}?" if close else f"known: {', '.join(names)}"


def _taken_by_json(words: list[str]) -> str:
    return next((after for word, after in pairwise(words) if word == "--json" and not after.startswith("-")), "")


if __name__ == "__main__":
    sys.exit(main())
