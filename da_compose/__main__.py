"""Starts the command line, `da-compose` or `python -m da_compose`, and says why where it cannot.

The commands are the top of the house, in `benchmarks`; this is their doorbell. It lies here since
`adapters` and `benchmarks` are names that other distributions have too, and may have overwritten.
"""

import sys
from importlib import import_module
from importlib.metadata import packages_distributions

OURS = ("adapters", "benchmarks", "data_prep")


def main() -> None:
    """Run the command line. To break it off while its libraries load is no error."""
    try:
        commands = import_module("benchmarks.cli.main").main
    except KeyboardInterrupt:
        sys.exit("Aborted!")
    except (ImportError, AttributeError):
        if said := overwritten():
            sys.exit(said)
        raise
    commands()


def overwritten() -> str | None:
    """One line that names other distributions whose packages have the names of ours, or None."""
    holders = packages_distributions()
    others = {
        name: sorted({*holders.get(name, ())} - {"da-compose"})
        for name in OURS
        if {*holders.get(name, ())} - {"da-compose"}
    }
    if not others:
        return None
    found = ", ".join(f"{name} is also of {' and '.join(names)}" for name, names in others.items())
    return (
        f"packages of da-compose were overwritten by other distributions ({found}); "
        "install da-compose alone in an environment of its own"
    )


if __name__ == "__main__":
    main()
