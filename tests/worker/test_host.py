"""The hosting commands, as processes: what they say, and what they never show."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from holdfast.worker.server import EmbeddedServer
from tests.support.processes import holdfast, hosting, wait_for_line

KEY = "sk-live-0123456789abcdef"
AGENTS = "from holdfast import Agent\na = Agent(name='a', model='scripted/x')\n"


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    (tmp_path / "agents.py").write_text(AGENTS)
    return tmp_path / "agents.py"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("HOLDFAST_ENDPOINTS", f'{{"x/*": {{"api_kee": "{KEY}"}}}}', "endpoints.x/*.api_kee"),
        ("HOLDFAST_ENDPOINTS", f'{{"x/*": "{KEY}"}}', "endpoints.x/*"),
        ("HOLDFAST_ENDPOINTS", f'{{"x/*": {{"api_key": "{KEY}"', "endpoints: is no JSON"),
        ("HOLDFAST_GRACE_SECONDS", KEY, "grace_seconds"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "demo"])
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    agents: Path, command: str, name: str, value: str, field: str
) -> None:
    sources = [str(agents)] if command == "worker" else []
    done = holdfast(command, *sources, env={name: value}, cwd=agents.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"settings.{field}" in done.stderr
    assert "sk-live" not in done.stderr


def broken(tmp_path: Path, text: str) -> str:
    """Return what `holdfast worker` says of a file, in one line, without its folder."""
    path = tmp_path / "mine.py"
    path.write_text(text)
    done = holdfast("worker", str(path), cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    return done.stderr.strip().replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "from holdfast import Agent\n\na = Agent(name='a', modell='x')",
            "mine.py:3: Agent: model: Field required; modell: Extra inputs are not permitted",
        ),
        ("def deep():\n    return {}['lost']\n\ndeep()", "mine.py:2: KeyError: 'lost'"),
        ("import json\njson.loads('{')", "mine.py:2: JSONDecodeError: "),
        ("import nowhere.at_all", "mine.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\ny = = 2", "mine.py:2: SyntaxError: "),
        (
            f"import pydantic\nclass M(pydantic.BaseModel):\n    n: int\nM(n='{KEY}')",
            "mine.py:4: M: n: Input should be a valid integer",
        ),
        ("from holdfast import tool\n@tool\ndef f(x): ...", "mine.py:2: tool 'f': parameter 'x' needs a type"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    told = broken(tmp_path, text)
    assert told.startswith(f"holdfast: {said}")
    assert "sk-live" not in told


def test_a_mistake_in_a_module_names_the_modules_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "agents.py").write_text("\n1 / 0")
    done = holdfast("worker", "mine.agents", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "mine/agents.py:2: ZeroDivisionError: division by zero" in done.stderr


def test_setup_and_healthcheck_speak_json_and_a_worker_says_that_it_started_once_it_polls(agents: Path) -> None:
    queue = f"host-{uuid.uuid4().hex[:8]}"
    with EmbeddedServer.start(agents.parent / ".holdfast", port=0, ui_port=0) as server:
        told = {"TEMPORAL_ADDRESS": server.address, "HOLDFAST_TASK_QUEUE": queue}
        log = agents.parent / "worker.log"
        with hosting("worker", str(agents), env=told, log=log, cwd=agents.parent) as process:
            started = json.loads(wait_for_line(log, "worker.started", process))
            assert started["ui"] == server.ui_url
            names = [json.loads(line)["event"] for line in log.read_text().splitlines()]
            assert names.index("search_attributes.registered") < names.index("worker.started")
            healthy = holdfast("healthcheck", "--json", env=told)
            assert healthy.returncode == 0, healthy.stderr
            (line,) = healthy.stdout.splitlines()
            assert json.loads(line)["task_queue"] == queue
            assert len(json.loads(line)["workers"]) == 1
        done = holdfast("setup", "--json", env=told)
        assert "AgentName" in json.loads(done.stdout)["search_attributes"]


def test_a_namespace_that_is_not_there_is_one_line(address: str, tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("from holdfast import Agent\na = Agent(name='a', model='m')\n")
    done = holdfast("--address", address, "--namespace", "nowhere", "worker", str(tmp_path / "agents.py"))
    assert done.returncode == 2
    assert "holdfast: Worker validation failed: Namespace nowhere was not found" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "defines no agent and no tool"),
        ("import sys\nsys.exit('boom')", "boom"),
        ("import sys\nsys.exit()", "SystemExit"),
    ],
)
def test_a_file_that_brings_nothing_is_refused(address: str, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "nothing.py").write_text(source)
    done = holdfast("--address", address, "worker", str(tmp_path / "nothing.py"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr
    assert "nothing.py" in done.stderr


def test_dev_uses_its_own_server_whatever_the_environment_says_of_another(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("from holdfast import Agent\na = Agent(name='a', model='m')\n")
    told = {"TEMPORAL_API_KEY": "a-cloud-key", "TEMPORAL_TLS": "true"}
    arguments = ("dev", "agents.py", "--port", "0", "--ui-port", "0")
    with hosting(*arguments, env=told, log=tmp_path / "dev.log", cwd=tmp_path) as process:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("folder", ["afile", "afile/below"])
def test_a_folder_that_can_not_be_used_is_one_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "afile").write_text("")
    (tmp_path / "agents.py").write_text("from holdfast import Agent\na = Agent(name='a', model='m')\n")
    done = holdfast("dev", "agents.py", env={"HOLDFAST_FOLDER": folder}, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "can't be used" in done.stderr


def test_a_wrong_temporal_profile_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "temporal.toml").write_text("no toml")
    done = holdfast("runs", "list", env={"TEMPORAL_CONFIG_FILE": str(tmp_path / "temporal.toml")})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "configuration" in done.stderr
