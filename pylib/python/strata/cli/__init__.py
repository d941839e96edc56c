"""The command line. `main` is what the executable and `python -m strata` call; one module a command or a group of them.

Nothing here is imported by the library, and commands are imported when they are asked for: `strata version` is fast.
Standard output is data, standard error is talk. Errors are raised, and told by `failures` alone.
"""

from strata.cli.main import main

__all__ = ["main"]
