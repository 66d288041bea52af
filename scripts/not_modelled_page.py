"""Write docs/not-modelled.md from the table of what is not modelled: python scripts/not_modelled_page.py > docs/not-modelled.md"""

from __future__ import annotations

import sys

from apexsim.cli.notmodelled import page

if __name__ == "__main__":
    sys.stdout.write(page())
