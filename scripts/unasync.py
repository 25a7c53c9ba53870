"""Generates the blocking half of the SDK from the async half. --check only compares.

    python scripts/unasync.py [--check] [FOLDER]

`async_http.py` and `blocking_http.py` are written by hand: they differ in more than words.
"""

import difflib
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "src/tether/client"
RUFF = Path(sys.executable).parent / "ruff"
FILES = {
    "aio.py": "sync.py",
    "aio_events.py": "sync_events.py",
    "aio_run.py": "sync_run.py",
}
HEADING = "# Generated from {} by scripts/unasync.py. Change that file, then run `make unasync`.\n"
WORDS = [
    (r"async (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\banext\b", "next"),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"(?<!\w)(_?)Async(?=[A-Z])", r"\1"),
    (r"\baio_", "sync_"),
    (r"\basync_http\b", "blocking_http"),
    (r"\basync client\b", "blocking client"),
    (r"\bby many tasks\b", "by many threads"),
]


def blocking(text: str, name: str) -> str:
    """The blocking form of a module of this name."""
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    text = HEADING.format(name) + text
    for command in (["check", "--quiet", "--select", "I", "--fix-only"], ["format", "--quiet"]):
        text = subprocess.run(
            [RUFF, *command, "--stdin-filename", FOLDER / FILES[name], "-"],
            input=text,
            capture_output=True,
            check=True,
            encoding="utf-8",
        ).stdout
    return text


def main() -> int:
    """Writes the blocking modules, or prints how they differ from generated ones."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    folder = Path(arguments[0]) if arguments else FOLDER
    stale = False
    for source, target in FILES.items():
        made = blocking((folder / source).read_text(encoding="utf-8"), source)
        if "--check" not in sys.argv:
            (folder / target).write_text(made, encoding="utf-8")
            continue
        found = (folder / target).read_text(encoding="utf-8")
        if found != made:
            stale = True
            lines = found.splitlines(keepends=True), made.splitlines(keepends=True)
            sys.stderr.writelines(difflib.unified_diff(*lines, target, f"{target} from {source}"))
    if stale:
        print("The blocking half of the SDK is stale: run `make unasync`.", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
