"""`python -m segatlas`."""

from __future__ import annotations

from segatlas.cli.main import main

if __name__ == "__main__":
    main()
