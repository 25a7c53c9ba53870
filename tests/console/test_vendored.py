"""VENDORED.md describes the third-party files, with the versions in scripts/vendor.py."""

import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts/vendor.py"))


def test_the_page_about_vendored_files_is_true() -> None:
    said = (SCRIPT["STATIC"] / "VENDORED.md").read_text(encoding="utf-8")
    assert said == SCRIPT["page"]()


def test_every_vendored_file_has_its_licence_beside_it() -> None:
    for file in SCRIPT["FILES"]:
        assert SCRIPT["licence_of"](file).exists()
