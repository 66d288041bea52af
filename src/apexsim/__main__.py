"""`python -m apexsim` is the command line."""

import sys

from apexsim.cli import main

if __name__ == "__main__":
    sys.exit(main())
