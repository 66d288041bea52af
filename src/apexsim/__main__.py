"""`apexsim` and `python -m apexsim`: the command line, loaded under a guard, so that Ctrl-C is one line from the start."""

import sys

INTERRUPTED = 130


def start() -> int:
    """Load the command line and run it; the exit code."""
    try:
        from apexsim.cli import main

        return main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("apexsim: interrupted\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(start())
