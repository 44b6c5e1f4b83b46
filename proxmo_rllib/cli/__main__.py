"""`python -m proxmo_rllib.cli`, for where the script `proxmo` is not on the path."""

from __future__ import annotations

import sys

from proxmo_rllib.cli import main

if __name__ == "__main__":
    sys.exit(main())
