"""`tether` and `python -m tether`: the command line, if what it needs is installed."""

import os
import sys

_UTF8_MODE = ["-X", "utf8"]


def main() -> None:
    """Runs the command line. The SDK alone does not bring what that needs."""
    _speak_utf8()
    try:
        from tether.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tether"):
            raise
        sys.exit(
            f"tether: The command line needs {error.name}: pip install '.[cli]' in Tether's folder"
        )
    run()


def _speak_utf8() -> None:
    """Begins anew in Python's UTF-8 mode where the locale has another encoding.

    Then arguments, variables, names of files and all text are UTF-8, whatever the locale says:
    Python has decoded the arguments by it before anything of ours runs.
    """
    is_utf8 = sys.getfilesystemencoding() == "utf-8" or sys.orig_argv[1:3] == _UTF8_MODE
    if not is_utf8 and sys.executable and os.name == "posix":
        program: list[str | bytes] = [sys.executable, *_UTF8_MODE, *_arguments()]
        os.execv(sys.executable, program)  # noqa: S606


def _arguments() -> list[bytes]:
    """Python's arguments as they were given: some encodings cannot encode all that they decode."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            return file.read().split(b"\0")[1:-1]
    except OSError:
        return [os.fsencode(argument) for argument in sys.orig_argv[1:]]


if __name__ == "__main__":
    main()
