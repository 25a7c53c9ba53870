"""A server goes on while an upgrade replaces its files, until it is restarted."""

import shutil
import sys
from pathlib import Path

import tether
from tests.abuse.test_sqlite_file import until_logged
from tests.conftest import Server

OPTIONS = ["--log-level", "debug", "--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http"]


def test_a_server_whose_files_are_replaced_answers_as_before(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "tether"
    shutil.copytree(Path(tether.__file__).parent, package)
    environment = {"PYTHONPATH": str(package.parent)}
    program = [sys.executable, "-m", "tether"]
    server = Server(str(tmp_path / "tether.db"), OPTIONS, environment, program=program)
    server.start()
    try:
        until_logged(server, "everything is imported")
        for file in (*package.rglob("*.py"), *package.rglob("*.html")):
            file.write_text("{{ of.another.version }}")
        with server.client() as client:
            assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
            for path in ("/console", "/guides/sessions", "/docs", "/openapi.json", "/sessions"):
                assert client.get(path, follow_redirects=True).status_code == 200, path
            hook = client.post("/webhooks", json={"url": "http://127.0.0.1:1/"}).json()
            outcome = client.post(f"/webhooks/{hook['id']}/test").json()
            assert "onnect" in outcome["error"]
        assert server.failures() == []
    finally:
        server.stop()
