"""Run several processes as one: prefixed output, one Ctrl-C for all, none left behind however this one ends.

Each process leads a session of its own, so that it and what it started can be signalled together. The kernel
kills it (PR_SET_PDEATHSIG) when this process is killed without a chance to clean up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO

from launch_xml import Process

PR_SET_PDEATHSIG = 1
# between SIGINT, SIGTERM and SIGKILL, as in ros2 launch
GRACE_S = float(os.environ.get("LAUNCH_GRACE_S", "5"))
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class _Running:
    """A started process with what is still to be read from it."""

    process: Process
    popen: subprocess.Popen[bytes]
    code: int | None = None
    rest: dict[IO[bytes], bytes] = field(default_factory=dict)


def run_all(processes: list[Process]) -> int:
    """Start all, show their output until they end or a signal comes; the exit code for the shell.

    0: all ended well, or were asked to end and did. 1: one failed, or had to be killed.
    """
    group = _Group()
    read_end, write_end = os.pipe()
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    asked: list[int] = []
    old_wakeup = signal.set_wakeup_fd(write_end)
    old = {
        number: signal.signal(number, lambda number, _frame: asked.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    group.selector.register(read_end, selectors.EVENT_READ)
    try:
        for process in processes:
            if asked:
                break
            group.start(process)
        while group.alive():
            group.wait(read_end)
            while asked:
                group.stop(f"signal {signal.Signals(asked.pop(0)).name}")
            group.reap()
            group.escalate()
        return 1 if group.failed else 0
    finally:
        group.kill()
        signal.set_wakeup_fd(old_wakeup)
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(read_end)
        os.close(write_end)


class _Group:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.running: list[_Running] = []
        self.failed = False
        self._stage = -1  # index into STOPPING of the last signal sent
        self._next_at = 0.0

    def start(self, process: Process) -> None:
        try:
            popen = subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if process.stderr_only else subprocess.PIPE,
                stderr=subprocess.PIPE if process.stderr_only else subprocess.STDOUT,
                env={"PYTHONUNBUFFERED": "1", **os.environ, **process.environment},
                cwd=process.cwd,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        except OSError as error:
            self.failed = True
            self.say(f"{process.name}: cannot start {process.command[0]}: {error.strerror}")
            self.stop("a process could not be started")
            return
        stream = popen.stderr if process.stderr_only else popen.stdout
        assert stream is not None
        os.set_blocking(stream.fileno(), False)
        running = _Running(process, popen, rest={stream: b""})
        self.running.append(running)
        self.selector.register(stream, selectors.EVENT_READ, running)
        self.say(f"{process.name}: started, process {popen.pid}")

    def alive(self) -> bool:
        return any(r.code is None for r in self.running)

    def wait(self, wakeup: int) -> None:
        """Until there is output, a signal, the end of a process, or the next step of stopping is due."""
        timeout = max(0.0, self._next_at - time.monotonic()) if self._stage >= 0 else None
        for key, _ in self.selector.select(timeout):
            if key.fd == wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.read(wakeup, 4096)
            else:
                self._show(key.data, key.fileobj)  # type: ignore[arg-type]

    def reap(self) -> None:
        for running in self.running:
            if running.code is not None or running.popen.poll() is None:
                continue
            running.code = running.popen.returncode
            _signal_group(running.popen.pid, signal.SIGKILL)  # what it started and left
            for stream in list(running.rest):
                self._show(running, stream, last=True)
            self._judge(running)

    def _judge(self, running: _Running) -> None:
        name, code = running.process.name, running.code or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        stopping = self._stage >= 0
        by_us = stopping and code in (-signal.SIGINT, -signal.SIGTERM, 130, 143)
        if code != 0 and not by_us:
            self.failed = True
            self.say(f"{name}: died ({how})")
        else:
            self.say(f"{name}: ended")
        if running.process.required and not stopping:
            self.stop(f"{name} has ended")

    def stop(self, why: str) -> None:
        """Ask all to end; asked again, ask harder."""
        if self._stage < 0 and self.alive():
            self.say(f"stopping: {why}")
        self._advance()

    def escalate(self) -> None:
        if self._stage >= 0 and self.alive() and time.monotonic() >= self._next_at:
            self._advance()

    def _advance(self) -> None:
        self._stage = min(self._stage + 1, len(STOPPING) - 1)
        self._next_at = time.monotonic() + GRACE_S
        for running in self.running:
            if running.code is None:
                if self._stage > 0:
                    self.say(f"{running.process.name}: still there, sending {STOPPING[self._stage].name}")
                _signal_group(running.popen.pid, STOPPING[self._stage])

    def kill(self) -> None:
        for running in self.running:
            if running.code is None:
                _signal_group(running.popen.pid, signal.SIGKILL)
                running.popen.wait()

    def _show(self, running: _Running, stream: IO[bytes], last: bool = False) -> None:
        while True:
            try:
                data = os.read(stream.fileno(), 65536)
            except BlockingIOError:
                break
            if not data:
                last = True
                break
            *lines, running.rest[stream] = (running.rest[stream] + data).split(b"\n")
            for line in lines:
                self.say(f"{running.process.name}| {line.decode(errors='replace')}")
        if last and stream in running.rest:
            rest = running.rest.pop(stream)
            if rest:
                self.say(f"{running.process.name}| {rest.decode(errors='replace')}")
            self.selector.unregister(stream)
            stream.close()

    def say(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.stop("nobody reads the output")


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def die_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return in_child
