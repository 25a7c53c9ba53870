"""Starts `tether` by a fork of a process that has loaded it already.

Most of what a command or a small server takes is to load Python's modules, and the tests start
more than a thousand. What is started so is a process of its own as any other, with its own
arguments, environment, folder and standard files. Where something depends on how Python itself
starts, such as its variables, a real start is made.

python tests/forked.py SOCKET MODULE …: loads these modules, and forks for who asks by that socket.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

TETHER = Path(sys.executable).with_name("tether")
_SERVER = ("tether.cli.commands.serve", "tether.server.launch", "tether.server.run",
           "tether.http.app", "tether.storage.sqlite.file", "tether.storage.sqlite.engine",
           "uvloop", "uvicorn.lifespan.off")  # fmt: skip
_COMMAND = ("tether.cli.commands.keys", "tether.cli.commands.events", "tether.cli.commands.check",
            "tether.server.store", "tether.server.admin", "tether.storage.sqlite.engine",
            "tether.storage.postgres.engine", "tether.client.blocking_http")  # fmt: skip
_OF_PYTHON = ("PYTHON", "LC_", "LANG", "COVERAGE", "LD_", "MALLOC")
_MOST_BYTES = 200_000  # of a message
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_asking = threading.Lock()


def is_usual(environment: Mapping[str, str]) -> bool:
    """Whether Python would start in this environment as it has started here."""
    names = {name for name in {*environment, *os.environ} if name.startswith(_OF_PYTHON)}
    if any(name.startswith("COVERAGE") for name in names):  # which measures from the start on
        return False
    return all(environment.get(name) in (None, os.environ.get(name)) for name in names)


class Forked(subprocess.Popen[str]):
    """A process that was started so. It cannot `communicate`."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        files: Sequence[int],
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        """`files` are its standard ones; of the others, those who read what it writes."""
        self.args, self.stdin, self.stdout, self.stderr = words, None, stdout, stderr
        self.returncode: int | None = None
        self._end, told = os.pipe()
        kind = _SERVER if "serve" in words[1:2] else _COMMAND
        os.umask(mask := os.umask(0o077))
        state = {
            "argv": list(words), "folder": str(folder), "environment": dict(environment),
            "mask": mask, "limits": [(limit, resource.getrlimit(limit)) for limit in _LIMITS],
        }  # fmt: skip
        self.pid = _ask(kind, state, [*files, told])
        os.close(told)

    def poll(self) -> int | None:
        return self._wait_for(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._wait_for(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _wait_for(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            end = select.poll()
            end.register(self._end, select.POLLIN)
            if end.poll(None if timeout is None else 1000 * timeout):
                self.returncode = int(os.read(self._end, 10))
                os.close(self._end)
        return self.returncode


def start_server(words: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Starts `tether serve …`, of which both outputs can be read."""
    if words[0] != str(TETHER) or not is_usual(environment):
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
    (stdout, out), (stderr, error) = os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        return Forked(
            words, folder=Path.cwd(), environment=environment, files=(nothing, out, error),
            stdout=open(stdout), stderr=open(stderr),
        )  # fmt: skip
    finally:
        for file in (nothing, out, error):
            os.close(file)


def run_command(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: str,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Runs `tether …` to its end, and returns what it wrote."""
    if not is_usual(environment):
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, cwd=folder, env=environment,
            timeout=timeout, check=False,
        )  # fmt: skip
    with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as error:
        given.write(stdin)
        given.seek(0)
        files = [file.fileno() for file in (given, out, error)]
        process = Forked(words, folder=folder, environment=environment, files=files)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for file in (out, error):
            file.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), error.read())


# The process that forks ---------------------------------------------------------------------------


@cache
def _forker(modules: tuple[str, ...]) -> socket.socket:
    """Such a process, which ends when the tests do."""
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
    """Returns in each of the forked processes, when it is what it shall be."""
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
        message, files, *_ = socket.recv_fds(channel, _MOST_BYTES, 4)
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
        # To take everything apart, most of it the other process's, takes longer than a command.
        if "serve" in sys.argv[1:2] or threading.active_count() > 1 or type(end.code) is not int:
            raise
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
