"""The self-hosting stack keeps its promises: files are read, scripts run with stand-ins."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from holdfast.activities.agents import check_input
from holdfast.request import RunRequest
from holdfast.worker.discovery import discover

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOTS = {"temporal-schema", "temporal-namespace", "holdfast-setup"}
LONG_RUNNING = SERVICES.keys() - ONE_SHOTS
SCRIPTS = sorted((ROOT / "deploy").rglob("*.sh"))
SECRET_NAME = re.compile(r"PASSWORD|PWD|SECRET|TOKEN|_KEY$")


def seconds(duration: str) -> int:
    """Read a compose duration of one unit, such as 45s or 2m."""
    amount, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return int(amount) * {"s": 1, "m": 60}[unit]


def version_of(service: str) -> str:
    """Return the tag of a service's image."""
    return str(SERVICES[service]["image"]).rpartition(":")[2]


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions as (word, rest), continuation lines joined, defaults filled in."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    defaults = dict(rest.split("=", 1) for word, rest in lines if word == "ARG" and "=" in rest)
    return [(word, re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], rest)) for word, rest in lines]


def copied_paths() -> list[str]:
    """Return what the Dockerfile copies out of the build context."""
    copies = [rest.split() for word, rest in dockerfile() if word == "COPY" and "--from=" not in rest]
    return [path for words in copies for path in words[:-1] if not path.startswith("--")]


# The compose file


def test_compose_file_fits_the_compose_specification() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_every_image_is_pinned_to_an_exact_version() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), name
    bases = [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    assert bases
    for base in bases:
        assert re.search(r":\d+\.\d+\.\d+-slim-bookworm$", base), base


def test_deprecated_auto_setup_image_is_not_used() -> None:
    assert not [name for name, service in SERVICES.items() if "auto-setup" in service["image"]]


def test_schema_tool_and_server_have_one_version() -> None:
    assert version_of("temporal-schema") == version_of("temporal-namespace") == version_of("temporal")


def test_worker_image_carries_the_project_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version_of("worker") == version_of("holdfast-setup") == project["version"]


def test_every_published_port_is_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    assert not [name for name, service in SERVICES.items() if "network_mode" in service]


def test_one_shots_end_and_long_running_services_come_back() -> None:
    assert {name for name in SERVICES if SERVICES[name]["restart"] == "on-failure:5"} == ONE_SHOTS
    assert {name for name in SERVICES if SERVICES[name]["restart"] == "unless-stopped"} == LONG_RUNNING


def test_one_shots_must_succeed_and_servers_be_healthy_before_what_depends_on_them() -> None:
    edges = {
        (needed, how["condition"])
        for service in SERVICES.values()
        for needed, how in service.get("depends_on", {}).items()
    }
    assert {condition for needed, condition in edges if needed in ONE_SHOTS} == {"service_completed_successfully"}
    assert {condition for needed, condition in edges if needed in LONG_RUNNING} == {"service_healthy"}
    assert {needed for needed, _ in edges} >= ONE_SHOTS


def test_schema_comes_before_the_server_and_search_attributes_before_the_worker() -> None:
    def before(service: str) -> set[str]:
        direct = set(SERVICES[service].get("depends_on", {}))
        return direct.union(*(before(needed) for needed in direct))

    assert {"postgres", "temporal-schema"} <= before("temporal")
    assert {"temporal", "temporal-namespace", "holdfast-setup"} <= before("worker")


def test_every_long_running_service_has_a_healthcheck() -> None:
    for name in LONG_RUNNING:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD", name


def test_worker_may_finish_its_grace_before_docker_kills_it() -> None:
    worker = SERVICES["worker"]
    assert seconds(worker["stop_grace_period"]) > int(worker["environment"]["HOLDFAST_GRACE_SECONDS"])


def test_workers_can_be_scaled() -> None:
    assert not {"container_name", "ports"} & SERVICES["worker"].keys()


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    secrets = {
        (name, key): value
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if SECRET_NAME.search(key)
    }
    assert {name for name, _ in secrets} == {"postgres", "temporal-schema", "temporal"}
    for where, value in secrets.items():
        assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), where


def test_model_keys_and_the_database_password_do_not_meet() -> None:
    assert [name for name, service in SERVICES.items() if "env_file" in service] == ["worker"]
    assert SERVICES["worker"]["env_file"] == [{"path": "worker.env", "required": False}]


def test_postgres_keeps_its_data_in_a_named_volume() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres-data:/var/lib/postgresql/data"]
    assert "postgres-data" in COMPOSE["volumes"]


def test_every_mounted_file_exists_and_is_read_only() -> None:
    mounts = [
        mount.split(":")
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if mount.startswith(".")
    ]
    assert mounts
    for source, target, mode in mounts:
        assert (ROOT / source).is_dir(), source
        assert mode == "ro", target


def test_every_path_named_inside_a_mount_exists() -> None:
    for name in ("temporal-schema", "temporal-namespace"):
        assert SERVICES[name]["entrypoint"][0] == "/bin/sh"
        assert (ROOT / "deploy/scripts" / Path(SERVICES[name]["entrypoint"][1]).name).is_file(), name
    settings = Path(SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"])
    assert (ROOT / "deploy/dynamicconfig" / settings.name).is_file()
    assert f"./deploy/dynamicconfig:{settings.parent}:ro" in SERVICES["temporal"]["volumes"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert service.get("read_only", False) is (name != "temporal-ui")


def test_every_dynamic_setting_is_a_list_of_values() -> None:
    settings = yaml.safe_load((ROOT / "deploy/dynamicconfig/holdfast.yaml").read_text())
    assert settings
    for name, values in settings.items():
        assert re.fullmatch(r"(history|limit|matching|system)\.\w+", name)
        assert [value.keys() for value in values] == [{"value"}]


# The image


def test_every_path_that_the_dockerfile_copies_exists() -> None:
    missing = [path for path in copied_paths() if not (ROOT / path).exists()]
    assert missing == []


def test_build_context_holds_what_is_copied_and_no_secrets() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {"**/.env", "**/*.env"} <= set(rules[rules.index("!examples/") :])
    for path in copied_paths():
        assert {f"!{path}", f"!{path.split('/')[0]}/"} & set(rules), path


def test_image_installs_hash_pinned_dependencies_and_every_package() -> None:
    runs = [rest for word, rest in dockerfile() if word == "RUN"]
    assert "pip install --require-hashes -r requirements.lock" in runs
    assert "pip install --no-deps ." in runs
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    assert {f"{folder}/" for folder in mapping.values()} <= set(copied_paths())


def test_what_the_dockerfile_copies_before_it_installs_can_be_installed(tmp_path: Path) -> None:
    steps = dockerfile()
    before = steps[: steps.index(("RUN", "pip install --no-deps ."))]
    tree, target = tmp_path / "tree", tmp_path / "target"
    tree.mkdir()
    for path in (path for word, rest in before if word == "COPY" for path in rest.split()[:-1]):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, tree / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, tree)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(tree)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    for installed in ("worker/host.py", "examples/orders.csv", "examples/invoices/INV-1001.json"):
        assert (target / "holdfast" / installed).is_file(), installed


def test_agents_of_the_image_are_the_examples_and_can_write_on_a_read_only_root() -> None:
    assert ("COPY", "--chmod=755 examples/ /app/agents/") in dockerfile()
    source = Path(json.loads(dict(dockerfile())["CMD"])[1])
    assert source.parent == Path("/app/agents")
    assert (ROOT / "examples" / source.name).is_file()
    told = " ".join(rest for word, rest in dockerfile() if word == "ENV")
    assert "INVOICE_LEDGER=/tmp/" in told
    assert SERVICES["worker"]["tmpfs"] == ["/tmp"]


def test_command_of_the_docs_starts_a_run_that_the_image_serves() -> None:
    page = (ROOT / "docs/deploy.md").read_text().replace("\\\n", " ")
    (line,) = [line for line in page.splitlines() if "workflow start" in line]
    words = shlex.split(line)
    request = RunRequest.read(json.loads(words[words.index("--input") + 1]))
    served = discover([str(ROOT / "examples" / Path(SERVICES["worker"]["command"][1]).name)])
    assert isinstance(request.agent, str)
    check_input(served.agents[request.agent], request.input)
    assert list((ROOT / "examples" / Path(str(request.input["folder"])).relative_to("/app/agents")).glob("*.json"))


def test_image_runs_holdfast_as_an_unprivileged_user() -> None:
    last = dict(dockerfile())
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"] == '["holdfast"]'
    assert json.loads(last["CMD"]) == SERVICES["worker"]["command"]


def holdfast_commands() -> list[list[str]]:
    """Return every command line of ours that the compose file or the image calls, without the program."""
    image = json.loads(dict(dockerfile())["CMD"])
    check = SERVICES["worker"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "holdfast"]
    called = [image, SERVICES["worker"]["command"], SERVICES["holdfast-setup"]["command"], check[2:]]
    return [list(line) for line in dict.fromkeys(map(tuple, called))]


@pytest.mark.parametrize("line", holdfast_commands(), ids=" ".join)
def test_every_holdfast_command_that_is_called_exists(line: list[str]) -> None:
    command, *rest = line
    program = [sys.executable, "-c", "from holdfast.client.cli import main; main()"]
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    asked = [*program, command, "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip()
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.stdout


# The scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_script_is_executable_posix_shell_that_stops_at_the_first_error(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.stat().st_mode & stat.S_IROTH
    subprocess.run(["/bin/sh", "-n", script], check=True)


class StandIn:
    """A program on PATH that writes down its arguments, and fails while a file says so."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._calls = folder / f"{name}.calls"
        program = folder / name
        program.write_text(
            "#!/bin/sh\n"
            f'echo "$*" >> "{self._calls}"\n'
            f'for rule in "{folder}"/fail-*; do\n'
            '  [ -e "$rule" ] || continue\n'
            '  case "$*" in *"$(head -1 "$rule")"*) ;; *) continue ;; esac\n'
            '  left=$(tail -1 "$rule"); [ "$left" -gt 0 ] || continue\n'
            '  { head -1 "$rule"; echo $((left - 1)); } > "$rule.new"; mv "$rule.new" "$rule"\n'
            "  exit 1\n"
            "done\n"
        )
        program.chmod(0o755)

    def fail(self, words: str, times: int = 1_000_000) -> None:
        (self.folder / f"fail-{words.replace(' ', '-')}").write_text(f"{words}\n{times}\n")

    def run(self, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.folder}:{os.environ['PATH']}", "PAUSE_SECONDS": "0", **settings}
        path = ROOT / "deploy/scripts" / script
        return subprocess.run([path], capture_output=True, text=True, env=env, timeout=30, check=False)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


DATABASE = {"SQL_HOST": "db", "SQL_PORT": "5432", "SQL_USER": "temporal", "SQL_PASSWORD": "hush"}
NAMESPACE = {"TEMPORAL_ADDRESS": "127.0.0.1:7233", "NAMESPACE": "default", "RETENTION": "30d"}


def test_schema_script_creates_then_migrates_both_databases(tmp_path: Path) -> None:
    tool = StandIn(tmp_path, "temporal-sql-tool")
    assert tool.run("temporal-schema.sh", **DATABASE).returncode == 0
    assert [call.partition("--db ")[2] for call in tool.calls] == [
        "temporal create",
        "temporal setup-schema -v 0.0",
        "temporal update-schema -d /etc/temporal/schema/postgresql/v12/temporal/versioned",
        "temporal_visibility create",
        "temporal_visibility setup-schema -v 0.0",
        "temporal_visibility update-schema -d /etc/temporal/schema/postgresql/v12/visibility/versioned",
    ]


def test_schema_script_keeps_the_password_out_of_the_process_list(tmp_path: Path) -> None:
    tool = StandIn(tmp_path, "temporal-sql-tool")
    shown = tool.run("temporal-schema.sh", **DATABASE)
    assert "hush" not in "".join([*tool.calls, shown.stdout, shown.stderr])


def test_schema_script_stops_and_fails_when_a_migration_fails(tmp_path: Path) -> None:
    tool = StandIn(tmp_path, "temporal-sql-tool")
    tool.fail("temporal update-schema")
    assert tool.run("temporal-schema.sh", **DATABASE).returncode != 0
    assert len(tool.calls) == 3


def test_schema_script_refuses_to_start_without_a_password(tmp_path: Path) -> None:
    tool = StandIn(tmp_path, "temporal-sql-tool")
    assert tool.run("temporal-schema.sh", **{**DATABASE, "SQL_PASSWORD": ""}).returncode != 0
    assert tool.calls == []


def test_namespace_script_waits_for_the_frontend_and_creates_what_is_missing(tmp_path: Path) -> None:
    cli = StandIn(tmp_path, "temporal")
    cli.fail("cluster health", times=2)
    cli.fail("namespace describe")
    cli.fail("workflow list", times=1)
    assert cli.run("temporal-namespace.sh", **NAMESPACE).returncode == 0
    assert cli.calls == [
        *["operator cluster health"] * 3,
        "operator namespace describe --namespace default",
        "operator namespace create --namespace default --retention 30d",
        *["workflow list --namespace default --limit 1"] * 2,
    ]


def test_namespace_script_leaves_an_existing_namespace_alone(tmp_path: Path) -> None:
    cli = StandIn(tmp_path, "temporal")
    assert cli.run("temporal-namespace.sh", **NAMESPACE).returncode == 0
    assert not [call for call in cli.calls if "create" in call or "update" in call]


def test_namespace_script_gives_up_and_fails_when_nothing_answers(tmp_path: Path) -> None:
    cli = StandIn(tmp_path, "temporal")
    cli.fail("cluster health")
    shown = cli.run("temporal-namespace.sh", ATTEMPTS="3", **NAMESPACE)
    assert shown.returncode == 1
    assert "gave up waiting for the frontend" in shown.stderr
    assert cli.calls == ["operator cluster health"] * 3
