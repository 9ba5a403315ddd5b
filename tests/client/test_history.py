"""A run's whole history: restarts, continued links and links that were deleted, live and with cursors."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from holdfast import HoldfastError, InputInvalid, RunNotFound
from holdfast.client.connect import connect
from holdfast.client.history import Line, find_cursor, read
from holdfast.worker.server import answers, find_binary, free_port
from tests.support.processes import temporal

QUICK_DELETION = ("transfer", "visibility")


@workflow.defn(name="AgentRun", sandboxed=False)
class Chained:
    """Continues as new `more` times, and ends; each link waits for a signal where `held` says so."""

    def __init__(self) -> None:
        self._let_go = False

    @workflow.run
    async def run(self, request: dict[str, Any]) -> str:
        if request.get("held"):
            await workflow.wait_condition(lambda: self._let_go)
        if request.get("more"):
            carried = {"link": workflow.info().run_id}
            workflow.continue_as_new({**request, "more": request["more"] - 1, "carried": carried})
        return "done"

    @workflow.signal
    def go(self) -> None:
        """Let this link go on."""
        self._let_go = True


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    client = await connect(address)
    async with Worker(client, task_queue=_queue(client), workflows=[Chained]):
        yield client


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve with a server that deletes within seconds what it is asked to delete; others take half a minute."""
    port = free_port()
    command = [str(find_binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    for name in QUICK_DELETION:
        command += ["--dynamic-config-value", f'history.{name}ProcessorUpdateAckInterval="1s"']
    with (tmp_path_factory.mktemp("server") / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not answers(f"127.0.0.1:{port}"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _queue(client: Client) -> str:
    return f"chained-{id(client)}"


async def _start(client: Client, run_id: str, after: str | None = None, **request: Any) -> WorkflowHandle[Any, Any]:
    given = {"agent": "any", **request} | ({"after": {"run": after}} if after else {})
    return await client.start_workflow("AgentRun", given, id=run_id, task_queue=_queue(client))


async def _current(client: Client, run_id: str) -> str:
    return (await client.get_workflow_handle(run_id).describe()).run_id


async def _played(client: Client, *more: int) -> tuple[str, list[str]]:
    """Run, and start again; each time it continues as new so many times. Returns the run id, and each seq's last."""
    run_id, ends = f"chain-{uuid.uuid4().hex[:8]}", list[str]()
    for times in more:
        await (await _start(client, run_id, ends[-1] if ends else None, more=times)).result()
        ends.append(await _current(client, run_id))
    return run_id, ends


async def _lines(client: Client, run_id: str, *, live: bool = False) -> list[Line]:
    return [line async for line in read(client, run_id, live=live)]


def _links(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line.link for line in lines))


def _cursor(line: Line) -> str:
    return f"{line.link}/{line.event.event_id}.0"


async def test_a_run_is_read_whole_through_restarts_and_continued_links(client: Client) -> None:
    run_id, ends = await _played(client, 2, 0, 1)
    lines = await _lines(client, run_id)
    links = _links(lines)
    assert len(links) == 6
    assert [links[2], links[3], links[5]] == ends
    assert [line.event.event_id for line in lines].count(1) == 6
    assert {line.link for line in lines if line.superseded} == set(links[:4])
    assert {line.link for line in lines if not line.superseded} == set(links[4:])
    assert await _lines(client, run_id, live=True) == lines


async def test_a_restart_may_name_its_own_run_and_a_fork_begins_with_its_own_events(client: Client) -> None:
    run_id, (end,) = await _played(client, 1)
    await (await _restart(client, run_id, run_id, end)).result()
    assert len(_links(await _lines(client, run_id))) == 3
    fork = f"fork-{uuid.uuid4().hex[:8]}"
    await (await _restart(client, fork, run_id, end)).result()
    lines = await _lines(client, fork)
    assert _links(lines) == [await _current(client, fork)]
    assert not any(line.superseded for line in lines)


async def _restart(client: Client, run_id: str, of: str, link: str) -> WorkflowHandle[Any, Any]:
    given = {"agent": "any", "after": {"run": link, "workflow_id": of}}
    return await client.start_workflow("AgentRun", given, id=run_id, task_queue=_queue(client))


@pytest.mark.parametrize("after", ["no link at all", "", 7, None, {}, str(uuid.UUID(int=7))])
async def test_a_run_that_goes_on_from_what_is_not_there_begins_with_its_own_events(client: Client, after: Any) -> None:
    for given in ({"agent": "any", "after": {"run": after}}, {"after": after}, after, [after]):
        run_id = f"odd-{uuid.uuid4().hex[:8]}"
        handle = await client.start_workflow("AgentRun", {"held": True}, id=run_id, task_queue=_queue(client))
        await handle.terminate()
        await client.start_workflow("AgentRun", given, id=run_id, task_queue="nobody")
        assert _links(await _lines(client, run_id)) == [await _current(client, run_id)]


async def test_a_live_reader_goes_on_with_the_links_that_come(client: Client) -> None:
    run_id = f"chain-{uuid.uuid4().hex[:8]}"
    handle = await _start(client, run_id, more=3, held=True)
    seen: list[Line] = []
    async for line in read(client, run_id, live=True):
        seen.append(line)
        if line.event.event_id == 4:  # its first workflow task is done: it waits
            await client.get_workflow_handle(run_id).signal("go")
    assert len(_links(seen)) == 4
    assert not any(line.superseded for line in seen)
    assert seen == await _lines(client, run_id)
    assert await handle.result() == "done"


async def test_a_live_reader_of_a_run_that_is_started_again_before_it_came_to_the_end_reads_on(client: Client) -> None:
    run_id = f"chain-{uuid.uuid4().hex[:8]}"
    first = await _start(client, run_id, held=True)
    lines = read(client, run_id, live=True)
    seen = [await anext(lines)]
    await first.signal("go")
    await first.result()
    second = await _start(client, run_id, first.result_run_id, more=1)
    seen += [line async for line in lines]
    assert len(_links(seen)) == 3
    assert [line.link for line in seen if line.superseded][-1] == first.result_run_id
    assert seen[-1].event.HasField("workflow_execution_completed_event_attributes")
    assert not seen[-1].superseded
    await second.result()


async def test_a_live_reader_ends_with_the_run_as_it_is_then_and_a_later_one_reads_what_came_after(
    client: Client,
) -> None:
    run_id, (end,) = await _played(client, 1)
    before = await _lines(client, run_id, live=True)
    assert not any(line.superseded for line in before)
    await (await _start(client, run_id, end)).result()
    after = await _lines(client, run_id)
    assert [(each.link, each.event) for each in after[: len(before)]] == [(each.link, each.event) for each in before]
    assert all(line.superseded for line in after[: len(before)])


async def test_an_id_that_another_run_has_taken_ends_a_live_reader_of_the_first(client: Client) -> None:
    run_id = f"chain-{uuid.uuid4().hex[:8]}"
    first = await _start(client, run_id, held=True)
    lines = read(client, run_id, live=True)
    seen = [await anext(lines)]
    await first.signal("go")
    await first.result()
    await (await _start(client, run_id)).result()
    seen += [line async for line in lines]
    assert _links(seen) == [first.result_run_id]
    assert not seen[-1].superseded


async def test_any_event_of_any_link_is_a_cursor(client: Client) -> None:
    run_id, _ = await _played(client, 1, 0)
    lines = await _lines(client, run_id)
    for place, line in enumerate(lines):
        cursor = await find_cursor(client, run_id, _cursor(line))
        assert [cursor.is_told_by(each) for each in lines] == [False] * place + [True] * (len(lines) - place)
    other, _ = await _played(client, 0)
    last = lines[-1]
    wrong = [
        f"{last.link}/{last.event.event_id + 1}.0",
        f"{uuid.uuid4()}/1.0",
        "x",
        "",
        f"{last.link}/1",
        f"{run_id}/1.0",
    ]
    for text in [*wrong, "x", "", _cursor((await _lines(client, other))[0])]:
        with pytest.raises(InputInvalid, match="is not a cursor of run"):
            await find_cursor(client, run_id, text)


async def test_a_run_reset_in_an_earlier_link_is_read_as_it_stands(client: Client, address: str) -> None:
    run_id, (end,) = await _played(client, 2)
    before = await _lines(client, run_id)
    words = ("workflow", "reset", "-w", run_id, "-r", _links(before)[1], "--event-id", "4", "--reason", "test")
    done = await asyncio.to_thread(temporal, address, *words)
    assert done.returncode == 0, done.stderr
    after = await _lines(client, run_id, live=True)
    assert len(_links(after)) == 3
    assert _links(after)[0] == _links(before)[0]
    assert not {*_links(after)[1:]} & {*_links(before)}
    with pytest.raises(InputInvalid, match="is not a cursor of run"):
        await find_cursor(client, run_id, f"{end}/1.0")


async def test_a_live_reader_of_a_run_that_is_reset_in_an_earlier_link_is_told(client: Client, address: str) -> None:
    run_id = f"chain-{uuid.uuid4().hex[:8]}"
    first = await _start(client, run_id, more=1, held=True)
    await first.signal("go")
    with pytest.raises(HoldfastError, match="was reset"):
        await _read_and_reset(client, address, run_id, str(first.result_run_id))
    await client.get_workflow_handle(run_id).terminate()


async def _read_and_reset(client: Client, address: str, run_id: str, link: str) -> None:
    async for line in read(client, run_id, live=True):
        if line.link != link and line.event.event_id == 4:
            words = ("workflow", "reset", "-w", run_id, "-r", link, "--event-id", "4", "--reason", "test")
            done = await asyncio.to_thread(temporal, address, *words)
            assert done.returncode == 0, done.stderr


async def test_a_run_whose_oldest_links_were_deleted_begins_with_the_first_that_is_left(forgetful: str) -> None:
    client = await connect(forgetful)
    async with Worker(client, task_queue=_queue(client), workflows=[Chained]):
        (whole, _), (cut, _), (ended, ends) = [await _played(client, *more) for more in ((2,), (1, 1), (0, 2))]
        before = {run_id: await _lines(client, run_id) for run_id in (whole, cut, ended)}
        links = {run_id: _links(lines) for run_id, lines in before.items()}
        gone = {whole: links[whole][:2], cut: links[cut][2:3], ended: ends[:1]}
        await asyncio.gather(*[_delete(client, run_id, each) for run_id, ids in gone.items() for each in ids])
        left = {whole: links[whole][2:], cut: links[cut][3:], ended: links[ended][1:]}
        for run_id, wanted in left.items():
            lines = await _lines(client, run_id)
            assert lines == [line for line in before[run_id] if line.link in wanted]
            assert await _lines(client, run_id, live=True) == lines
            for line in lines:
                assert (await find_cursor(client, run_id, _cursor(line))).link == line.link
            for each in gone[run_id]:
                with pytest.raises(InputInvalid, match=r"gone: the earliest of run .* was deleted"):
                    await find_cursor(client, run_id, f"{each}/1.0")
        with pytest.raises(InputInvalid, match="gone"):  # it is there still, but what it led to is not
            await find_cursor(client, cut, f"{links[cut][0]}/1.0")
        await _delete(client, ended, links[ended][-1])
        with pytest.raises(RunNotFound):
            await _lines(client, ended)


async def _delete(client: Client, run_id: str, link: str) -> None:
    execution = WorkflowExecution(workflow_id=run_id, run_id=link)
    request = DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    await client.workflow_service.delete_workflow_execution(request)
    async with asyncio.timeout(40):
        while await _is_there(client, run_id, link):
            await asyncio.sleep(0.1)


async def _is_there(client: Client, run_id: str, link: str) -> bool:
    executions = client.list_workflows(f"WorkflowId = '{run_id}' AND RunId = '{link}'")
    return bool([each async for each in executions])
