"""`apexsim` and `python -m apexsim`: the command line, loaded under a guard, so that a signal is one line from the start."""

import sys

INTERRUPTED = 130


def start() -> int:
    """Load the command line and run it; the exit code."""
    try:
        _heed_signals()
        from apexsim.cli import main

        return main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("apexsim: interrupted\n")
        return INTERRUPTED


def _heed_signals() -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, so that nothing half written stays; what `nohup` ignores stays ignored."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(start())
