"""``python -m pneumolib`` is the command line."""

import sys

from pneumolib.cli import main

if __name__ == "__main__":
    sys.exit(main())
