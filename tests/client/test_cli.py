"""The command line, as a process, against a worker process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import Client
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.worker.server import free_port
from tests.support.processes import HOLDFAST, holdfast, hosting, serving, wait_for_line

AGENTS = '''
import time
from holdfast import Agent, tool

@tool
def nap(seconds: float) -> str:
    """Nap."""
    time.sleep(seconds)
    return "napped"

napper = Agent(name="napper", description="Naps.", model="scripted-model", tools=[nap])
'''


def _script(request: ChatRequest) -> Reply:
    if request.turn == 0 and "for" in request.last_text:
        return call(("nap", {"seconds": float(request.last_text.split("for ")[1])}))
    return say(f"done \x1b[31mred\x1b[0m [/b] {request.last_text}\nand that is all, {'really ' * 40}[end]")


@pytest.fixture(scope="module")
def env(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A worker process, and the environment in which commands find it."""
    with serving(AGENTS, _script, address=address, folder=tmp_path_factory.mktemp("cli")) as told:
        yield told


def test_run_prints_the_id_and_watch_follows_it_to_its_end(env: dict[str, str]) -> None:
    done = holdfast("run", "napper", "--message", "Nap for 0.1", "--watch", env=env)
    assert done.returncode == 0, done.stderr
    run_id, *lines = done.stdout.splitlines()
    assert run_id.startswith("napper-")
    assert "run_started" in lines[0]
    assert "nap seconds=0.1" in done.stdout
    at_end = next(number for number, line in enumerate(lines) if "run_completed" in line)
    assert lines[at_end + 1].startswith("done ")
    assert lines[at_end + 2] == f"and that is all, {'really ' * 40}[end]", "the answer is whole"
    assert lines[at_end + 3 :] == ["completed · 2 steps · $0.0000"]
    assert "\x1b" not in done.stdout, "what a model says must not drive the terminal"


def test_json_is_one_object_a_line(env: dict[str, str]) -> None:
    done = holdfast("run", "napper", "-m", "Hello", "--watch", "--json", env=env)
    first, *events, result = [json.loads(line) for line in done.stdout.splitlines()]
    assert (first["kind"], first["status"], {each["kind"] for each in events}) == ("run", "pending", {"event"})
    assert events[-1]["type"] == "run_completed"
    assert (result["kind"], result["status"], result["run_id"]) == ("result", "completed", first["id"])
    again = holdfast("runs", "watch", first["id"], "--after", events[-2]["id"], "--json", env=env)
    assert [json.loads(line) for line in again.stdout.splitlines()] == [events[-1], result]
    shown = holdfast("runs", "show", first["id"], "--json", env=env)
    assert json.loads(shown.stdout)["final_text"].startswith("done")
    [agent] = [json.loads(line) for line in holdfast("agents", "list", "--json", env=env).stdout.splitlines()]
    assert (agent["name"], agent["tools"]) == ("napper", ["nap"])


def test_runs_are_listed_shown_messaged_and_cancelled(env: dict[str, str]) -> None:
    started = holdfast("run", "napper", "-m", "Nap for 30", "--key", f"k-{uuid.uuid4()}", env=env)
    run_id = started.stdout.strip()
    sent = holdfast("runs", "message", run_id, "Hurry", "--id", "m1", env=env)
    assert sent.stdout.strip() == "m1"
    assert holdfast("runs", "cancel", run_id, env=env).returncode == 0
    watched = holdfast("runs", "watch", run_id, env=env)
    assert watched.returncode == 1, "a cancelled run is no success"
    assert "task_cancelled" in watched.stdout
    shown = holdfast("runs", "show", run_id, env=env)
    assert "cancelled" in shown.stdout
    assert "Hurry" in shown.stdout
    deadline = time.monotonic() + 10
    while (listed := holdfast("runs", "list", "--agent", "napper", "--status", "cancelled", env=env).stdout) and (
        run_id not in listed and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    assert run_id in listed


def test_a_pipe_that_closes_early_is_no_traceback(env: dict[str, str]) -> None:
    done = holdfast("runs", "list", "--limit", "1", env=env)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs", "show", "nope"), "no run has the id 'nope'"),
        (("runs", "show", "../x"), "no run has the id '../x'"),
        (("run", "napper", "--input", "novalue"), "is not key=value"),
        (("run", "napper", "--run-id", "../x", "-m", "x"), "run_id"),
        (("run", "napper", "--message", "x", "--key", "k" * 2_000), "idempotency_key"),
        (("runs", "list", "--status", "it's"), "none of pending, running"),
        (("run", "napper", "--input-json", "/nowhere.json"), "can't read '/nowhere.json'"),
        (("run", "napper", "--input-json", __file__), "is no JSON"),
        (("run", "napper", "--input-json", "/dev/null"), "is no JSON"),
        (("runs", "watch", "nope", "--after", "x"), "no run has the id 'nope'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(env: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = holdfast(*arguments, env=env)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr


def test_input_is_a_json_file_and_pairs_upon_it_which_are_json_unless_quoted(
    env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "input.json").write_text('{"invoice": {"number": 7}, "number": 1, "where": "file"}')
    pairs = ("-i", "number=1001", "-i", 'code="1001"', "-i", "text=it is")
    done = holdfast("run", "napper", "--input-json", "input.json", *pairs, env=env, cwd=tmp_path)
    with Client(env["TEMPORAL_ADDRESS"]) as client:
        given = client.runs.wait(done.stdout.strip(), timeout=30).input
    numbers = {"number": 1001, "code": "1001"}
    assert given == {"invoice": {"number": 7}, "where": "file", **numbers, "text": "it is"}


def test_input_is_read_from_stdin_and_must_be_an_object(env: dict[str, str]) -> None:
    command, given = [*HOLDFAST, "run", "napper", "--input-json", "-", "--watch"], {**os.environ, **env}
    done = subprocess.run(command, env=given, input='{"place": "hall"}', capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hall" in done.stdout
    done = subprocess.run(command, env=given, input="[1]", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "holdfast: input-json: '-' must hold one JSON object\n")


def test_a_run_that_fails_ends_watch_with_exit_code_1_also_where_nothing_is_left_to_watch(env: dict[str, str]) -> None:
    done = holdfast("run", "nobody", "-m", "Hello", "--watch", "--json", env=env)
    assert done.returncode == 1
    assert "no agent is named 'nobody'" in done.stdout
    *_, last, result = [json.loads(line) for line in done.stdout.splitlines()]
    again = holdfast("runs", "watch", result["run_id"], "--after", last["id"], env=env)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (1, "failed · 0 steps · $0.0000")


def test_no_server_is_one_line_with_the_mend_within_three_seconds() -> None:
    began = time.monotonic()
    done = holdfast("runs", "list", env={"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}"})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "holdfast dev" in done.stderr
    assert time.monotonic() - began < 6, "three seconds, and Python's own start on a loaded machine"


def test_no_worker_is_one_line_with_the_mend(address: str) -> None:
    told = {"TEMPORAL_ADDRESS": address, "HOLDFAST_TASK_QUEUE": f"nobody-{uuid.uuid4().hex}"}
    done = holdfast("run", "napper", "-m", "Hello", "--watch", env=told)
    assert done.returncode == 2
    assert "holdfast worker" in done.stderr
    listed = holdfast("agents", "list", env=told)
    assert (listed.returncode, len(listed.stderr.splitlines())) == (2, 1)
    sick = holdfast("healthcheck", env=told)
    assert sick.returncode == 2
    Client(address).runs.cancel(done.stdout.split()[0])


def test_healthcheck_and_setup_are_well_where_all_is_well(env: dict[str, str]) -> None:
    well = holdfast("healthcheck", "--here", env=env)
    assert well.returncode == 0, well.stderr
    assert "healthy" in well.stdout
    done = holdfast("setup", env=env)
    assert done.returncode == 0, done.stderr
    assert "AgentName" in done.stdout


def test_sigterm_lets_running_tools_end_and_exits_with_0(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    told = env | {"HOLDFAST_TASK_QUEUE": f"term-{uuid.uuid4().hex[:8]}"}
    with Client(env["TEMPORAL_ADDRESS"], task_queue=told["HOLDFAST_TASK_QUEUE"]) as client:
        with hosting("worker", str(tmp_path / "agents.py"), env=told, log=tmp_path / "worker.log") as process:
            run = client.runs.create("napper", message="Nap for 2")
            for event in client.runs.stream_events(run.id):
                if event.type == "tool_called":
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            log = (tmp_path / "worker.log").read_text()
        assert "worker.stopped" in log
        done = [event for event in client.runs.get(run.id).logs if event.type == "tool_completed"]
        assert [event.data["attempt"] for event in done] == [1], "the tool ended in its grace, on its first attempt"
        client.runs.cancel(run.id)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "from holdfast import Agent\na = Agent(name='x', model='m')\nb = Agent(name='x', model='n')",
            "two different agents",
        ),
        ("from holdfast import Agent\na = Agent(name='x', model='m', tools=['lost'])", "no tool named 'lost'"),
        (
            "from holdfast import tool\n@tool\ndef f() -> int: ...\ng = f\n@tool(name='f')\ndef h() -> int: ...",
            "two different tools are named 'f'",
        ),
    ],
)
def test_a_worker_refuses_what_clashes_before_it_starts(
    env: dict[str, str], tmp_path: Path, source: str, said: str
) -> None:
    (tmp_path / "bad.py").write_text(source)
    done = holdfast("worker", str(tmp_path / "bad.py"), env=env)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["nowhere.py", "no.such.module"])
def test_a_source_that_is_not_there_is_told(env: dict[str, str], source: str) -> None:
    done = holdfast("worker", source, env=env)
    assert done.returncode == 2
    assert source in done.stderr


def test_a_wrong_setting_is_named(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    done = holdfast("worker", str(tmp_path / "agents.py"), env=env | {"HOLDFAST_GRACE_SECONDS": "soon"})
    assert done.returncode == 2
    assert "grace_seconds" in done.stderr


def test_worker_logs_are_json_with_run_agent_and_step(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    told = env | {"HOLDFAST_TASK_QUEUE": f"logs-{uuid.uuid4().hex[:8]}"}
    log = tmp_path / "worker.log"
    with hosting("worker", str(tmp_path / "agents.py"), env=told, log=log) as process:
        run_id = holdfast("run", "napper", "-m", "Hello", "--watch", env=told).stdout.split()[0]
        told_line = json.loads(wait_for_line(log, "model.called", process))
    assert (told_line["run_id"], told_line["agent"], told_line["step"]) == (run_id, "napper", 1)
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_dev_is_server_and_worker_in_one(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    told = {"HOLDFAST_ENDPOINTS": env["HOLDFAST_ENDPOINTS"]}
    port, log = free_port(), tmp_path / "dev.log"
    arguments = ("dev", "agents.py", "--port", str(port), "--ui-port", str(free_port()))
    for attempt in range(2):
        with hosting(*arguments, env=told, log=log, cwd=tmp_path) as process:
            at = {"TEMPORAL_ADDRESS": f"127.0.0.1:{port}"}
            done = holdfast("run", "napper", "-m", "Hello", "--watch", env=at)
            assert done.returncode == 0, done.stderr
            listed = holdfast("runs", "list", "--json", env=at).stdout.splitlines()
            assert len(listed) == attempt + 1, "a second start in the same folder finds the runs of the first"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
