"""A command on a terminal, as somebody has it who types."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time

from tests.support.processes import HOLDFAST


class Terminal:
    """A command on a terminal of its own, and somebody who types."""

    def __init__(self, *arguments: str, env: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        given = {**os.environ, **env, "TERM": "dumb", "COLUMNS": "200"}
        self.process = subprocess.Popen([*HOLDFAST, *arguments], env=given, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._end = ours
        self.shown, self._seen = "", 0

    def expect(self, text: str, seconds: float = 60) -> None:
        """Wait until the terminal shows a text, after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (found := self.shown.find(text, self._seen)) < 0:
            assert time.monotonic() < deadline, self.shown
            self._read()
        self._seen = found + len(text)

    def type(self, text: str) -> None:
        os.write(self._end, f"{text}\n".encode())

    def close(self) -> int:
        """Wait for the command's end, and return its exit code."""
        while self._read():
            pass
        os.close(self._end)
        return self.process.wait(30)

    def _read(self) -> bool:
        if select.select([self._end], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # the other end is closed
                piece = os.read(self._end, 65_536)
                self.shown += piece.decode(errors="replace")
                return bool(piece)
            return False
        return self.process.poll() is None
