"""Fetches the third-party files of the pages with npm: `make vendor`.

Writes version, licence and SHA-256 of each to VENDORED.md. To update one, change its version here.
"""

import subprocess
import sys
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "src/tether/http/static"
TESTS = ROOT / "tests/console"


class Vendored(NamedTuple):
    """A file of an npm package, and where it goes."""

    package: str
    version: str
    licence: str
    path: str
    target: Path


FILES = (
    Vendored("@scalar/api-reference", "1.72.1", "MIT", "dist/browser/standalone.js",
             STATIC / "scalar-api-reference.js"),
    Vendored("htmx.org", "2.0.11", "0BSD", "dist/htmx.min.js", STATIC / "htmx.min.js"),
    Vendored("htmx-ext-sse", "2.2.4", "0BSD", "dist/sse.min.js", STATIC / "htmx-sse.min.js"),
    Vendored("idiomorph", "0.8.0", "0BSD", "dist/idiomorph-ext.min.js",
             STATIC / "idiomorph.min.js"),
    Vendored("uplot", "1.6.32", "MIT", "dist/uPlot.iife.min.js", STATIC / "uplot.min.js"),
    Vendored("uplot", "1.6.32", "MIT", "dist/uPlot.min.css", STATIC / "uplot.min.css"),
    Vendored("world-atlas", "2.0.2", "ISC", "countries-50m.json", STATIC / "countries-50m.json"),
    Vendored("axe-core", "4.14.1", "MPL-2.0", "axe.min.js", TESTS / "axe.min.js"),
)  # fmt: skip
HEADING = """\
# Vendored files

Other people's files in this repository, unchanged. `make vendor` fetches them again with npm and
writes this page; their versions stand in `scripts/vendor.py`.

| File | npm package and file | Version | Licence | SHA-256 |
|---|---|---|---|---|
"""
CHECK = """
After a change of the reference's renderer, open `/docs` with the browser's network panel: this
server must be the only one asked, also after "Test Request". The settings that keep it so are in
`docs.js`; the Content-Security-Policy in `docs.html` enforces it.
"""


def main() -> int:
    """Writes the files, their licences and the page about them."""
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            package = _unpacked(file, Path(folder))
            file.target.write_bytes((package / file.path).read_bytes())
            licence = next(package.glob("LICEN[SC]E"), None)
            if licence is not None:
                licence_of(file).write_bytes(licence.read_bytes())
    (STATIC / "VENDORED.md").write_text(page())
    return 0


def page() -> str:
    """The text of VENDORED.md for the current files."""
    rows = [
        f"| `{_shown(file.target)}` | `{file.package}`, `{file.path}` | {file.version} "
        f"| {file.licence}, `{licence_of(file).name}` "
        f"| `{sha256(file.target.read_bytes()).hexdigest()}` |\n"
        for file in FILES
    ]
    return HEADING + "".join(rows) + CHECK


def _shown(target: Path) -> str:
    return target.name if target.parent == STATIC else str(target.relative_to(ROOT))


def licence_of(file: Vendored) -> Path:
    """Where its licence is."""
    name = file.package.removeprefix("@").replace("/", "-").removesuffix(".org")
    return file.target.parent / f"{name}.LICENSE"


def _unpacked(file: Vendored, folder: Path) -> Path:
    target = folder / file.package.replace("/", "-")
    if not target.exists():
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", str(folder),
             f"{file.package}@{file.version}"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as opened:
            opened.extractall(target, filter="data")
        archive.unlink()
    return target / "package"


if __name__ == "__main__":
    sys.exit(main())
