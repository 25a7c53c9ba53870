import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Server

IMPATIENT = Path(__file__).with_name("impatient.py")


@pytest.fixture
def impatient_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers with other limits: `impatient_server("tether.server.protocol.LINGER_S=5")`."""
    servers: list[Server] = []

    def make(*constants: str, options: tuple[str, ...] = ()) -> Server:
        server = Server(str(tmp_path / f"impatient-{len(servers)}.db"), list(options))
        server.program = [sys.executable, str(IMPATIENT), *constants]
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.kill()
