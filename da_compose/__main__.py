"""Starts the command line, `da-compose` or `python -m da_compose`, and says why where it cannot.

The commands are the top of the house, in `benchmarks`; this is their doorbell. It lies here since
`adapters` and `benchmarks` are names that other distributions have too, and may have overwritten.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

OURS = ("adapters", "benchmarks", "data_prep")
NAME = "da-compose"  # in the first line of each
ADVICE = "install da-compose alone in an environment of its own"


def main() -> None:
    """Run the command line. To break it off while its libraries load is no error."""
    if said := hidden():
        sys.exit(said)
    try:
        commands = import_module("benchmarks.cli.main").main
    except KeyboardInterrupt:
        sys.exit("Aborted!")
    except (ImportError, AttributeError):
        if said := overwritten():
            sys.exit(said)
        raise
    try:
        commands()  # imports what a command needs
    except ImportError:
        if said := overwritten():
            sys.exit(said)
        raise
    except OSError as error:  # of the output; of files a command says it itself
        print(f"Error: standard output: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(1)  # else what is left of the output would be tried again


def hidden() -> str | None:
    """One line that names a package of ours that is not beside this one, or not ours, or None."""
    here = Path(__file__).resolve().parents[1]
    for name in OURS:
        spec = find_spec(name)
        folders = [] if spec is None else [*(spec.submodule_search_locations or ())]
        if not folders and spec is not None and spec.origin is not None:
            folders = [spec.origin]  # a module, not a package
        found = [Path(folder).resolve() for folder in folders]
        if here / name not in found:
            where = f"Python finds {found[0]}" if found else "Python finds none"
            return (
                f"da-compose needs its own package {name}, {here / name}, and {where}; start it "
                f"elsewhere, leave that folder out of PYTHONPATH, or {ADVICE}"
            )
        if NAME not in (here / name / "__init__.py").read_text(encoding="utf-8"):
            said = f"{here / name / '__init__.py'} is not da-compose's: another has overwritten it"
            return overwritten() or f"{said}; {ADVICE}"
    return None


def overwritten() -> str | None:
    """One line that names other distributions whose packages have the names of ours, or None."""
    holders = packages_distributions()
    others = {
        name: names for name in OURS if (names := sorted({*holders.get(name, ())} - {"da-compose"}))
    }
    if not others:
        return None
    found = ", ".join(f"{name} is also of {' and '.join(names)}" for name, names in others.items())
    return f"packages of da-compose were overwritten by other distributions ({found}); {ADVICE}"


if __name__ == "__main__":
    main()
