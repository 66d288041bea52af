"""The command line (floor 7): `main` is the entry point, `options` the table of options, `commands` what they do."""

from apexsim.cli.main import main

__all__ = ["main"]
