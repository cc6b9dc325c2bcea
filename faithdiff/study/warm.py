"""Forks the jobs of a run from one process that has imported what they import.

The imports of a job take 3 to 7 seconds, longer than many a job of `mini`. So the workflow starts
one process for a run (:func:`start`). The command of a job hands it arguments, folder and open
files over a socket (:func:`ask`) and waits; the process imports what such a job needs, once, and
forks a child that does the job (:func:`serve`). Signals are passed on, and a child ends with the
command that waits for it.

Only where nothing can differ from a job that starts by itself: the child has the environment that
the modules were imported under, and the code is still the one that was imported. In all other
cases, and on GPUs, whose state does not survive a fork, and on clusters, each job starts by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

VARIABLE = "FAITHDIFF_WARM"  # holds the socket's path, for the commands of jobs
VERB = "warm-process"
FILES = (0, 1, 2)  # standard input, output and errors are handed over
TAKEN, REFUSED = b"+", b"-"
KILLED = 128 + signal.SIGKILL
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LOG = "FAITHDIFF_LOG"  # holds the path of a job's log, for its command
_ENDS = (signal.SIGTERM, signal.SIGHUP)
_ALONE = "faithdiff: jobs start by themselves, which takes longer; a TMPDIR that works helps"
# Each command has its own; no module reads them while it is imported.
OF_A_COMMAND = ("_", "PWD", "OLDPWD", "SHLVL", LOG)
_SIZE = struct.Struct("!I")
_CODE = str(Path(__file__).resolve())  # one environment may serve several copies of the suite
_LONGEST = 100  # bytes of a socket's path: Linux allows 107, macOS 103
# What the jobs of a verb import: these modules, and those of the suite that they reach by imports.
_METHODS = ("faithdiff.train.variants", "baselines.design")
_IMPORTS = {
    "prepare": ("faithdiff.data.datasets", "faithdiff.models.captioning"),
    "degrade": ("faithdiff.degrade.dataset",),
    "train-prior": ("faithdiff.train.prior",),
    "cache": ("faithdiff.train.encode",),
    "pretrain": ("faithdiff.train.run", *_METHODS),
    "train": ("faithdiff.train.run", *_METHODS),
    "restore-sets": ("faithdiff.restore.run", "faithdiff.score.heldout", *_METHODS),
    "score": ("faithdiff.score.run",),
}
_ALL_IMPORT = ("faithdiff.cli", "faithdiff.study.usage")


class _Request(NamedTuple):
    """A command: what it was started with."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    python: str
    code: str
    process: int

    @classmethod
    def of_this_process(cls) -> _Request:
        folder = str(Path.cwd())
        return cls(sys.argv[1:], folder, dict(os.environ), sys.prefix, _CODE, os.getpid())

    def imports_as(self, other: _Request) -> bool:
        """Whether modules that one process imports are those that the other would."""
        ours, theirs = (_lasting(request.environment) for request in (self, other))
        return (self.python, self.code, ours) == (other.python, other.code, theirs)


def _lasting(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OF_A_COMMAND}


_held: list[subprocess.Popen[bytes]] = []  # with the pipe: closed, it would end the process


def start() -> None:
    """Start the process that jobs are forked from, and name it to the commands of this run.

    It ends with the caller, however that ends: the caller holds one end of its standard input.
    Where it cannot be started, a line says why, and each job starts by itself.
    """
    try:
        address = _free_address()
        # -P: with -m, Python would first look for the suite in the current folder, which the
        # command `faithdiff` of a job does not.
        command = [sys.executable, "-P", "-m", "faithdiff", VERB, str(address)]
        _held.append(subprocess.Popen(command, stdin=subprocess.PIPE))
    except OSError as error:
        print(f"{_ALONE}: {error}", file=sys.stderr)
        return
    os.environ[VARIABLE] = str(address)


def _free_address() -> Path:
    """A path for the socket in a new folder that nobody else can enter."""
    for parent in (None, "/tmp"):  # TMPDIR may be too long for a socket
        address = Path(tempfile.mkdtemp(prefix="faithdiff-", dir=parent), "socket")
        if len(os.fsencode(address)) <= _LONGEST:
            break
        address.parent.rmdir()
    return address


def ask() -> int | None:
    """Have the command of this process done by a child of the warm process, and wait for it.

    Returns:
        Its exit code. None where there is no warm process or it refuses: nothing was done then.
    """
    if VARIABLE not in os.environ or sys.argv[1:2] == [VERB]:
        return None
    # Until they can be passed on: otherwise a training could lose what it saves on SIGTERM.
    with socket.socket(socket.AF_UNIX) as connection, _signals_kept():
        try:
            connection.connect(os.environ[VARIABLE])
            _send(connection, _Request.of_this_process())
            if connection.recv(1) != TAKEN:
                return None
        except OSError:  # it has not started yet, or is gone
            return None
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, lambda number, _: connection.send(bytes([number])))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return _wait(connection)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(connection: socket.socket) -> int:
    code = b""
    with contextlib.suppress(OSError):
        code = connection.recv(1)
        connection.recv(1)  # the end: the child has closed all its files
    if not code:
        print("faithdiff: the process of this job was killed", file=sys.stderr)
        return KILLED
    return code[0]


def _send(connection: socket.socket, request: _Request) -> None:
    body = json.dumps(request).encode()
    socket.send_fds(connection, [_SIZE.pack(len(body))], FILES)
    connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[_Request, list[int]]:
    header, files, _, _ = socket.recv_fds(connection, _SIZE.size, len(FILES))
    with connection.makefile("rb") as stream:
        body = stream.read(_SIZE.unpack(header)[0])
    return _Request(*json.loads(body)), files


class Child(NamedTuple):
    """A child that stands as the command that was asked for would, and does its work now."""

    command: int  # process id of the one that waits
    connection: socket.socket

    def do(self, work: Callable[[], None]) -> NoReturn:
        """Do the work, end as a process of its own would, and tell the command the exit code."""
        code = 0
        try:
            work()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001  (any: it ends here as the interpreter would end it)
            traceback.print_exc()
            code = 1
        # As multiprocessing ends its forks: taking down all that was imported would take long.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        self.connection.sendall(bytes([code & 0xFF]))
        os._exit(code)


def serve(address: Path) -> Child:
    """Fork a child for each request, until standard input ends; returns in a child alone."""
    ours = os.getpid()
    # Ctrl-C reaches the whole group: the commands pass it on, and this ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, _end)
    listener = socket.socket(socket.AF_UNIX)
    try:
        try:
            listener.bind(str(address))
            listener.listen(64)
        except OSError as error:  # some network disks have no sockets
            sys.exit(f"{_ALONE}: {address}: {error}")
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if listener not in ready:
                    sys.exit(0)
                connection, _ = listener.accept()
                if (asked := _fork(connection)) is not None:
                    listener.close()
                    return Child(asked.process, connection)
                connection.close()
    finally:
        if os.getpid() == ours:
            shutil.rmtree(address.parent, ignore_errors=True)


def _end(number: int, _: object) -> NoReturn:
    """End with what the process holds removed, as when a terminal is closed."""
    sys.exit(128 + number)


def _fork(connection: socket.socket) -> _Request | None:
    """Answer a request; the request itself in the child that is to do it."""
    files: list[int] = []
    try:
        request, files = _receive(connection)
        if _suits(request):
            _import_for(request.arguments)
            if os.fork() == 0:
                _become(request, files, connection)
                return request
        else:
            connection.sendall(REFUSED)
    except (OSError, ValueError, TypeError, struct.error, ImportError):
        pass  # whoever asked finds the connection closed, and starts by itself
    finally:
        for file in files:
            os.close(file)
    return None


_first: list[_Request] = []


def _suits(request: _Request) -> bool:
    """Whether a child may do it: the modules here are those that it would import itself."""
    if not _first:
        if (request.python, request.code) != (sys.prefix, _CODE):
            return False
        # Snakemake gives jobs more variables than it has itself; nothing is imported yet.
        os.environ.clear()
        os.environ.update(request.environment)
        _first.append(request)
    return request.imports_as(_first[0]) and _unchanged()


def _import_for(arguments: list[str]) -> None:
    from faithdiff.study.provenance import closure

    found = closure(*_IMPORTS.get(arguments[0] if arguments else "", ()))
    for module in [*_ALL_IMPORT, *sorted(found)]:
        importlib.import_module(module)
    _unchanged()  # from now on
    gc.freeze()  # no child walks through what is shared, which would copy it


_states: dict[str, tuple[int, int]] = {}


def _unchanged() -> bool:
    """Whether the files of the suite's modules are still those that were imported."""
    folder = str(Path(__file__).parents[2])
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.startswith(folder) and "site-packages" not in file:
            stat = Path(file).stat()
            state = (stat.st_mtime_ns, stat.st_size)
            if _states.setdefault(file, state) != state:
                return False
    return True


def _become(request: _Request, files: list[int], connection: socket.socket) -> None:
    """Stand as a process that was started with this request; in the child."""
    try:
        # A group of its own: otherwise Ctrl-C would reach it twice, directly and passed on.
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in _ENDS:
            if signal.getsignal(each) is _end:
                signal.signal(each, signal.SIG_DFL)
        for file, number in zip(files, FILES, strict=True):
            os.dup2(file, number)
        for name in ("stdout", "stderr"):
            old = getattr(sys, name)
            new = open(old.fileno(), "w", 1, old.encoding, old.errors, closefd=False)  # noqa: SIM115
            setattr(sys, name, new)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        sys.argv[1:] = request.arguments
        threading.Thread(target=_follow, args=(connection,), daemon=True).start()
        connection.sendall(TAKEN)
    except BaseException:  # noqa: BLE001  (never back into the loop; the command starts by itself)
        os._exit(1)


def _follow(connection: socket.socket) -> None:
    """Receive the signals of the command that waits; die with it."""
    while number := connection.recv(1):
        os.kill(os.getpid(), number[0])
    os.kill(os.getpid(), signal.SIGKILL)
