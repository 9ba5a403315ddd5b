"""Real MCP servers of the tests: a folder that a server and its test share, and a process for each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import McpServer
from holdfast.worker.launch import answers, free_port
from tests.support.plays import until
from tests.support.stage import DEADLINE

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Crm:
    """The server `crm` of one test, as its folder tells of it."""

    folder: Path

    def server(self, **more: Any) -> McpServer:
        """Return how to reach it over stdio."""
        args = ("-m", "tests.support.mcp_server", str(self.folder))
        return McpServer(name="crm", command=sys.executable, args=args, cwd=str(ROOT), **more)

    def tell(self, **state: Any) -> None:
        """Tell the server what it is to be like from now on."""
        new = self.folder / "state.new"
        new.write_text(json.dumps(state))
        new.replace(self.folder / "state.json")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return what the server noted."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def starts(self) -> int:
        """How often a process was started."""
        return len(self.lines("starts"))

    @property
    def calls(self) -> Counter[str]:
        """How often each tool was called."""
        return Counter(each["tool"] for each in self.lines("calls"))

    async def called(self, tool: str, times: int = 1) -> None:
        """Wait until a tool was called so often."""
        await until(lambda: self.calls[tool] >= times)

    @property
    def alive(self) -> bool:
        """Whether the process that was started last still runs."""
        try:
            os.kill(self.lines("starts")[-1]["pid"], 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill the process that was started last."""
        os.kill(self.lines("starts")[-1]["pid"], signal.SIGKILL)

    @contextmanager
    def http(self, **more: Any) -> Iterator[McpServer]:
        """Serve it over streamable HTTP."""
        port = free_port()
        command = [sys.executable, "-m", "tests.support.mcp_server", str(self.folder), str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield McpServer(name="crm", url=f"http://127.0.0.1:{port}/mcp", **more)
        finally:
            process.kill()
            process.wait()


async def serves(server: McpServer) -> None:
    """Wait until a server that speaks HTTP accepts connections."""
    place = (server.url or "").removeprefix("http://").partition("/")[0]
    async with asyncio.timeout(DEADLINE):
        while not answers(place):
            await asyncio.sleep(0.05)
