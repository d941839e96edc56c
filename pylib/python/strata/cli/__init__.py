"""The command line. `main` is what the executable and `python -m strata` call; one module a command group.

Nothing here is imported by the library, and the heavy imports of a command stay inside it: `strata version` is fast.
"""

from strata.cli.main import main

__all__ = ["main"]
