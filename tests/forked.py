"""Starts `tether` as a fork of a process that has already loaded it.

A command or a small server spends most of its time on imports, and the tests start more than a
thousand. A fork is a process of its own, with its own arguments, environment, folder and standard
files. If a test depends on how Python itself starts, such as on its variables, a real start is
made. conftest.py makes `subprocess` start every `tether` in this way.

python tests/forked.py SOCKET MODULE …: loads these modules, and forks on each request on SOCKET.
"""

import atexit
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, AnyStr

TETHER = Path(sys.executable).with_name("tether")
_SERVER = ("tether.cli.commands.serve", "tether.server.launch", "tether.server.run",
           "tether.http.app", "tether.storage.sqlite.file", "tether.storage.sqlite.database",
           "uvloop", "uvicorn.lifespan.off", "cryptography.fernet",
           "tether.webhooks.http_client", "tether.http.guides", "tether.console.app")  # fmt: skip
_COMMAND = ("tether.cli.commands.check", "tether.cli.commands.database",
            "tether.cli.commands.events", "tether.cli.commands.exporting",
            "tether.cli.commands.importing", "tether.cli.commands.keys",
            "tether.cli.commands.sessions", "tether.server.store", "tether.server.bootstrap",
            "tether.storage.copying", "tether.storage.sqlite.database",
            "tether.storage.postgres.database", "tether.client.blocking_http")  # fmt: skip
_OF_PYTHON = ("PYTHON", "LC_", "LANG", "COVERAGE", "LD_", "MALLOC")
_MAX_BYTES = 200_000  # of a message
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_asking = threading.Lock()


def is_usual(environment: Mapping[str, str] | None) -> bool:
    """Whether Python would start in this environment (or in ours) as it has started here."""
    if environment is None:
        environment = os.environ
    names = {name for name in {*environment, *os.environ} if name.startswith(_OF_PYTHON)}
    if any(name.startswith("COVERAGE") for name in names):  # which measures from the start on
        return False
    return all(environment.get(name) in (None, os.environ.get(name)) for name in names)


class Popen(subprocess.Popen[AnyStr]):
    """`subprocess.Popen`, but it forks to start `tether`, unless the test needs a real start."""

    def __init__(self, args: Any, *, env: Mapping[str, str] | None = None, **options: Any) -> None:
        self._end = -1
        self._forks = (
            isinstance(args, list)
            and str(args[0]) == str(TETHER)
            and is_usual(env)
            and not {"preexec_fn", "pass_fds", "process_group"} & options.keys()
        )
        super().__init__(args, env=env, **options)

    def _execute_child(self, *given: Any) -> None:
        real = super()._execute_child  # type: ignore[misc]  # not public, but as it is for years
        if not self._forks:
            real(*given)
            return
        of = signature(real).bind(*given).arguments
        words = list(map(os.fsdecode, of["args"]))
        standard = [of["p2cread"], of["c2pwrite"], of["errwrite"]]
        self._end, told = os.pipe()
        os.umask(mask := os.umask(0o077))
        state = {
            "argv": words,
            "folder": os.fsdecode(of["cwd"] or Path.cwd()),
            "environment": dict(os.environ if of["env"] is None else of["env"]),
            "mask": mask,
            "limits": [(limit, resource.getrlimit(limit)) for limit in _LIMITS],
            "leads": of["start_new_session"],
        }
        files: list[int] = [number if file == -1 else file for number, file in enumerate(standard)]
        self.pid = _ask(_SERVER if "serve" in words[1:2] else _COMMAND, state, [*files, told])
        os.close(told)
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*map(of.__getitem__, pipes))  # type: ignore[attr-defined]

    def _internal_poll(self, **state: Any) -> Any:
        return self._ended(0) if self._forks else super()._internal_poll(**state)  # type: ignore[misc]

    def _wait(self, timeout: float | None) -> Any:
        if not self._forks:
            return super()._wait(timeout)  # type: ignore[misc]
        status = self._ended(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def _ended(self, timeout: float | None) -> int | None:
        """The exit status, if the process ends within that time."""
        if self.returncode is None:
            end = select.poll()
            end.register(self._end, select.POLLIN)
            end.poll(None if timeout is None else 1000 * timeout)
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None and end.poll(0):
                    self.returncode = int(os.read(self._end, 10))
                    os.close(self._end)
        return self.returncode


# The process that forks ---------------------------------------------------------------------------


@cache
def _forker(modules: tuple[str, ...]) -> socket.socket:
    """The process that forks. It ends with the tests."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, __file__, str(its.fileno()), *modules],
        stdin=subprocess.DEVNULL, pass_fds=[its.fileno()], start_new_session=True,
    )  # fmt: skip
    its.close()
    return ours


def _ask(kind: tuple[str, ...], state: Any, files: list[int]) -> int:
    with _asking:
        forker = _forker(kind)
        socket.send_fds(forker, [json.dumps(state).encode()], files)
        return int(forker.recv(20))


def main() -> None:
    """Returns in each forked process, with its arguments and environment set."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    ends: dict[int, int] = {}

    def tell_ends(*_: object) -> None:
        while ends:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with suppress(BrokenPipeError):
                os.write(ends[pid], str(os.waitstatus_to_exitcode(status)).encode())
            os.close(ends.pop(pid))

    signal.signal(signal.SIGCHLD, tell_ends)
    while True:
        message, files, *_ = socket.recv_fds(channel, _MAX_BYTES, 4)
        if not message:
            os._exit(0)
        *standard, told = files
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            channel.close()
            for end in (told, *ends.values()):
                os.close(end)
            _become(json.loads(message), standard)
            return
        ends[pid] = told
        for file in standard:
            os.close(file)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        channel.send(str(pid).encode())


def _become(state: dict[str, Any], standard: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        os.dup2(standard[number], number)
        os.close(standard[number])
        line_by_line = 1 if name == "stderr" else -1
        file = open(number, mode, line_by_line, closefd=False)  # noqa: SIM115
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    if state["leads"]:
        os.setsid()
    os.chdir(state["folder"])
    os.umask(state["mask"])
    for limit, values in state["limits"]:
        if resource.getrlimit(limit) != tuple(values):
            resource.setrlimit(limit, tuple(values))
    os.environ.clear()
    os.environ.update(state["environment"])
    time.tzset()
    sys.argv = state["argv"]
    gc.unfreeze()


if __name__ == "__main__":
    main()
    from tether.__main__ import main as tether

    try:
        tether()
    except SystemExit as end:
        # Freeing everything, most of it inherited, would take longer than a command.
        if "serve" in sys.argv[1:2] or threading.active_count() > 1 or type(end.code) is not int:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
