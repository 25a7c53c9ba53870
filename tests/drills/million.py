"""The steps of docs/scaling.md, with a file of a million events."""

import time
from pathlib import Path

from tests.deploy.test_scaling import move_to_two_nodes
from tests.services import Postgres


def test_a_million_events_move_to_two_nodes_while_partners_report(
    guarded: Postgres, tmp_path: Path
) -> None:
    began = time.monotonic()
    move_to_two_nodes(guarded, tmp_path, stored=1_000_000)
    print(f"all of it in {time.monotonic() - began:.0f} s")
