"""The code of README and docs runs as it stands, against a real server, a real worker and a scripted model."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.activities.endpoints import Endpoint
from holdfast.examples import invoice_script
from holdfast.request import RunRequest
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, say
from tests.support.processes import endpoints, holdfast, hosting

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def _blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append((f"{page.name}-{number}", block))
    return found


def _reply(request: ChatRequest) -> Reply:
    prompt = str(next(each["content"] for each in request.messages if each["role"] == "user"))
    return invoice_script.reply(request) if "the folder" in prompt else say("310.00 was agreed.")


@pytest.fixture(scope="module")
def env(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with ScriptedModel(_reply) as model:
        told = {
            "TEMPORAL_ADDRESS": address,
            "HOLDFAST_TASK_QUEUE": f"docs-{uuid.uuid4().hex[:8]}",
            "HOLDFAST_ENDPOINTS": endpoints(model.url),
            "INVOICE_LEDGER": str(tmp_path_factory.mktemp("docs") / "verdicts.jsonl"),
        }
        log = tmp_path_factory.mktemp("docs") / "worker.log"
        with hosting("worker", "examples/invoice_checker.py", env=told, log=log, cwd=ROOT):
            yield told


@pytest.mark.parametrize(("name", "code"), _blocks("python"), ids=lambda value: value if len(value) < 40 else "")
def test_python_runs_as_it_stands(env: dict[str, str], name: str, code: str) -> None:
    code = code.replace('"localhost:7233"', repr(env["TEMPORAL_ADDRESS"]))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.parametrize(("name", "block"), _blocks("sh"), ids=lambda value: value if len(value) < 40 else "")
def test_commands_exist_and_take_these_options(name: str, block: str) -> None:
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets, f"{name}: {line}"
        elif words[:1] == ["holdfast"]:
            verbs = words[1:3] if words[1] in ("runs", "agents", "threads") else words[1:2]
            told = holdfast(*verbs, "--help")
            assert told.returncode == 0, f"{name}: {line}"
            for option in (word.partition("=")[0] for word in words if word.startswith("--")):
                assert option in told.stdout, f"{name}: {line}"
        elif words[:3] == ["temporal", "workflow", "start"]:
            assert RunRequest.read(json.loads(words[words.index("--input") + 1])).agent == "invoice-checker"


@pytest.mark.parametrize(("name", "block"), _blocks("json"), ids=lambda value: value if len(value) < 40 else "")
def test_endpoints_of_the_docs_are_endpoints(name: str, block: str) -> None:
    for pattern, endpoint in json.loads(block).items():
        assert Endpoint.model_validate(endpoint), f"{name}: {pattern}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} → {target}"
