"""`tether` and `python -m tether`: the command line, if what it needs is installed."""

import sys


def main() -> None:
    """Runs the command line. The SDK alone does not bring what that needs."""
    try:
        from tether.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tether"):
            raise
        sys.exit(
            f"tether: The command line needs {error.name}: pip install 'tether-partner-api[cli]'"
        )
    run()


if __name__ == "__main__":
    main()
