"""One nursery of workers for all tests of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.durability.theatre import Nursery, nursery


@pytest_asyncio.fixture(scope="package")
async def hatchery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nursery]:
    """Workers that are ready to poll at a signal."""
    async with nursery(tmp_path_factory.mktemp("nursery") / "workers.log") as opened:
        yield opened
