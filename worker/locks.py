"""Advisory locks on files, which end with the process that holds them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from holdfast.errors import ServerError

if sys.platform != "win32":
    import fcntl


def try_lock(file: IO[bytes], *, shared: bool = False) -> bool:
    """Take a lock if it is free (or shared by those who hold it), without waiting."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Say whether anybody holds a lock."""
    with path.open("ab") as file:
        return not try_lock(file)


@contextmanager
def locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold a lock, waiting for it until a time.monotonic(); ServerError when that has passed."""
    with path.open("ab") as file:
        while not try_lock(file):
            if time.monotonic() > deadline:
                raise ServerError(f"another process keeps {path} locked: end it and try again")
            time.sleep(0.02)
        yield
