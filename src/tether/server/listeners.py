"""The sockets on which a server listens."""

import socket

from tether.domain.errors import SetupError
from tether.server import protocol

BACKLOG = 4096


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket for HTTP; `shared` if other workers listen on the same port.

    The kernel ends a connection whose client does not take its answer. The protocol cannot see
    bytes that wait in the kernel. If a stream sends little, all of them wait there, and the kernel
    would keep trying for a quarter of an hour.

    Raises SetupError.
    """
    hint = "another with --host (TETHER_HOST) or --port (TETHER_PORT)"
    listener = bind(host, port, "Tether cannot listen", hint, shared=shared)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # on Linux; accepted connections inherit it
        timeout_ms = int(protocol.READER_TIMEOUT_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    return listener


def bind(host: str, port: int, problem: str, hint: str, *, shared: bool = False) -> socket.socket:
    """A listening socket. Raises SetupError, which says the problem and a hint what to choose."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=shared)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        raise SetupError(f"{problem} on {host} port {port}: {reason}. Choose {hint}.") from error


def url_of(listener: socket.socket) -> str:
    """The address at which clients reach a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
