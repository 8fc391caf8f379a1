"""``python -m flexc`` is the ``flexc`` command."""

from __future__ import annotations

import sys

from flexc.cli import main

if __name__ == "__main__":
    sys.exit(main())
