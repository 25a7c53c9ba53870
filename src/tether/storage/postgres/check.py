"""What `tether check` reports of a PostgreSQL database: rights, settings, free connections, and the
ends of certificates.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from cryptography import x509

from tether.domain.models import to_json
from tether.storage.database import Certificate, ServerReport
from tether.storage.migrate import VERSION_TABLE
from tether.storage.postgres.pool import NEEDED
from tether.storage.tables import TABLES, VIEWS

PATIENCE_S = 3.0
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")  # the protocol's number
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

# Settings that acknowledge a commit before it is on disk.
_RISKS = """
SELECT name || ' = ' || setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
ORDER BY name
"""
_RIGHTS = """
SELECT c.relname, string_agg(w.needed, ', ' ORDER BY w.place)
FROM pg_class c
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY w(needed, place)
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY (%s)
  AND (w.place = 1 OR c.relkind <> 'v' AND c.relname <> %s)
  AND NOT has_table_privilege(c.oid, w.needed)
GROUP BY c.relname
ORDER BY c.relname
"""
_OTHERWISE = """
SELECT s.name || ' = ' || current_setting(s.name)
FROM pg_settings s JOIN jsonb_each_text(%s) w ON w.key = s.name
WHERE s.setting <> w.value AND s.source <> 'default'
ORDER BY s.name
"""
_STATE = """
SELECT current_setting('server_encoding'), pg_is_in_recovery(),
       current_setting('default_transaction_read_only') = 'on',
       current_setting('max_connections')::int,
       current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
       - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


def server_report(
    connection: "psycopg.Connection[tuple[Any, ...]]", *, is_direct: bool
) -> ServerReport:
    """What Tether finds in the database. `is_direct`: no pooler is used."""
    relations = [*TABLES, *VIEWS, VERSION_TABLE]
    encoding, is_replica, read_only, most, free = connection.execute(_STATE).fetchall()[0]
    risks = [str(risk) for (risk,) in connection.execute(_RISKS)]
    rights = connection.execute(_RIGHTS, [relations, VERSION_TABLE]).fetchall()
    settings = connection.execute(_OTHERWISE, [to_json(NEEDED).decode()]).fetchall()
    return ServerReport(
        risks,
        [f"{missing} on {relation}" for relation, missing in rights],
        [str(setting) for (setting,) in settings],
        is_direct, encoding, is_replica, read_only, most, free,
    )  # fmt: skip


def certificates(options: Mapping[str, Any]) -> Iterator[Certificate]:
    """The certificates in the files that the options of a connection name, and of its servers."""
    for option in ("sslcert", "sslrootcert"):
        path = Path(str(options.get(option) or ""))
        if path.is_file():
            for text in _PEM.findall(path.read_bytes()):
                yield Certificate(path.name, _end_ms(x509.load_pem_x509_certificate(text)))
    host, port = str(options.get("host") or "localhost"), str(options.get("port") or "5432")
    for name, number in zip(host.split(","), (port.split(",") * 99), strict=False):
        if (der := _server_certificate(name, int(number))) is not None:
            yield Certificate(f"{name}:{number}", _end_ms(x509.load_der_x509_certificate(der)))


def _server_certificate(host: str, port: int) -> bytes | None:
    """The server's certificate, unverified; None if it cannot be reached or has no TLS."""
    if host.startswith("/"):  # the folder of a local socket
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PATIENCE_S) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                return None
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return secure.getpeercert(binary_form=True)
    except OSError:
        return None


def _end_ms(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
