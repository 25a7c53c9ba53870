"""Others cannot change the files that commands write, and commands follow no planted link."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli_partner.conftest import Site, new_partner, partner, site

__all__ = ["new_partner", "partner", "site"]  # fixtures


@pytest.fixture
def no_umask() -> Iterator[None]:
    """New files are writable for everybody, unless the program sets their mode."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def victim(site: Site) -> Path:
    """A file that somebody else would like to have overwritten."""
    victim = site.folder / "victim"
    victim.write_text("precious")
    return victim


EXPORTS = ["chargers.csv", "chargers.ndjson", "chargers.ndjson.gz", "chargers.parquet"]


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.usefixtures("no_umask")
def test_an_export_is_written_by_its_owner_only(site: Site, name: str) -> None:
    site.ok("export", "chargers", "--output", name)
    assert stat.S_IMODE((site.folder / name).stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_follows_no_link_in_a_folder_that_others_may_write(
    site: Site, victim: Path, name: str
) -> None:
    shared = site.folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / name).symlink_to(victim)
    (shared / (name + ".partial")).symlink_to(victim)
    said = site.refused("export", "chargers", "--output", f"shared/{name}")
    assert "is a link which somebody else may have put there" in said
    (shared / name).unlink()
    site.ok("export", "chargers", "--output", f"shared/{name}")
    assert (shared / name).is_file()
    assert not (shared / name).is_symlink()
    assert victim.read_text() == "precious"


@pytest.mark.usefixtures("no_umask")
def test_cursors_and_refused_rows_go_through_no_link(site: Site, victim: Path) -> None:
    for name in ("place.new", "bad.refused.csv"):
        (site.folder / name).symlink_to(victim)
    (site.folder / "bad.csv").write_text("id,chargePowers\n/,11\n")
    site("import", "bad.csv")
    report = site.folder / "bad.refused.csv"
    assert "chargePowers" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) & 0o022 == 0
    assert victim.read_text() == "precious"
