"""`pip install .` into a clean environment, outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("install")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
NOT_BUILT_FROM = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "tests", "docs")
IMPORT_ALL = """
import importlib, json, pkgutil, holdfast
names = ["holdfast", *(each.name for each in pkgutil.walk_packages(holdfast.__path__, "holdfast."))]
names = [name for name in names if not name.endswith("__main__")]
print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))
"""


@dataclass(frozen=True)
class Installed:
    """A wheel, and a virtual environment that has it."""

    wheel: Path
    venv: Path
    elsewhere: Path
    """A folder that has nothing to do with the checkout."""

    def run(self, *command: str) -> str:
        """Run a program of the environment from elsewhere, and return what it printed."""
        return _do(self.elsewhere, str(self.venv / "bin" / command[0]), *command[1:])

    def names(self) -> set[str]:
        """Return the names of the wheel's files."""
        with zipfile.ZipFile(self.wheel) as wheel:
            return set(wheel.namelist())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build a wheel from a copy of the tree, and install it beside the dependencies that are here already."""
    folder = tmp_path_factory.mktemp("install")
    tree, venv, elsewhere = folder / "tree", folder / "venv", folder / "elsewhere"
    shutil.copytree(ROOT, tree, ignore=NOT_BUILT_FROM)
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _do(folder, *pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(tree))
    (wheel,) = folder.glob("*.whl")
    _do(folder, sys.executable, "-m", "venv", "--without-pip", str(venv))
    _do(
        folder,
        *pip,
        "--python",
        str(venv / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    )
    # A folder that a .pth file names is only searched: the .pth files in it (our editable install's) are not read.
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(wheel, venv, elsewhere)


def _do(where: Path, *command: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=where, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_module_of_the_namespace_imports_from_the_environment(installed: Installed) -> None:
    found: dict[str, str | None] = json.loads(installed.run("python", "-c", IMPORT_ALL))
    assert {"holdfast", *FOLDERS} <= found.keys()
    assert [name for name, file in found.items() if not str(file).startswith(f"{installed.venv}/")] == []


def test_the_wheel_has_every_module_of_the_tree(installed: Installed) -> None:
    expected = {
        f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder).as_posix()}"
        for package, folder in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert expected <= installed.names()


def test_the_wheel_has_nothing_but_the_namespace(installed: Installed) -> None:
    information = f"holdfast-{PROJECT['project']['version']}.dist-info/"
    assert [each for each in installed.names() if not each.startswith(("holdfast/", information))] == []
    folders = {each.split("/")[1] for each in installed.names() if each.count("/") > 1}
    assert not folders & {"tests", "bench", "docs", "deploy"}


def test_the_types_are_marked_as_such(installed: Installed) -> None:
    assert "holdfast/py.typed" in installed.names()


def test_the_examples_bring_their_data(installed: Installed) -> None:
    data = {"holdfast/examples/orders.csv", *(f"holdfast/examples/invoices/INV-100{each}.json" for each in range(1, 6))}
    assert data <= installed.names()


def test_the_license_is_in(installed: Installed) -> None:
    assert any(each.endswith(".dist-info/licenses/LICENSE") for each in installed.names())


def test_the_version_is_that_of_the_project(installed: Installed) -> None:
    told = installed.run("python", "-c", "import importlib.metadata as m; print(m.version('holdfast'))")
    assert told.strip() == PROJECT["project"]["version"]


def test_the_command_runs_from_another_folder(installed: Installed) -> None:
    told = installed.run("holdfast", "--help")
    for command in ("run", "runs", "agents", "dev", "worker", "demo", "setup", "healthcheck"):
        assert f" {command} " in told
