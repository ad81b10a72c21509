"""Starts `da-compose`: to break it off while its libraries load is no error, either."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from benchmarks.cli import main as commands
    except KeyboardInterrupt:
        sys.exit("Aborted!")
    commands()


if __name__ == "__main__":
    main()
