"""`python -m strata`: the command line, from the wheel."""

from strata.cli import main

if __name__ == "__main__":
    main()
