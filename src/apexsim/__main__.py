"""`apexsim` and `python -m apexsim`: the command line, loaded under a guard, so that a signal is one line from the start."""

import sys

FAULT, INTERRUPTED = 1, 130
WHOLE = "APEXSIM_TRACEBACK"  # variable: set, a fault of the program itself is shown with all its lines


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
    except Exception as error:  # nobody's input should lead here: one line, and where to look
        return _faulty(error)


def _faulty(error: Exception) -> int:
    """Tell a fault of the program itself in one line; the exit code."""
    import os
    import traceback

    if os.environ.get(WHOLE):
        raise error
    from apexsim.errors import cut, shown

    last = traceback.extract_tb(error.__traceback__)[-1]
    told = " ".join(f"{type(error).__name__} at {os.path.basename(last.filename)}:{last.lineno}: {error}".split())
    if sys.stderr is not None:
        sys.stderr.write(cut(shown(f"apexsim: a fault of apexsim itself, please report it ({told}); {WHOLE}=1 shows all of it")) + "\n")
    return FAULT


def _heed_signals() -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, so that nothing half written stays; what `nohup` ignores stays ignored."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(start())
