"""What is given away: the wheel and the source archive, built from this checkout, and the wheel at work.

The wheel is installed into a virtual environment of its own, which borrows the dependencies of the running one. It runs
in an empty folder without PYTHONPATH, so that nothing of the checkout can be imported by chance.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from kalam import __version__

CHECKOUT = Path(__file__).parents[1]
STARTED_S = 90


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment that holds the wheel, and the empty folder in which its programs run."""

    folder: Path
    empty: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # The nats-server that came with the dependencies lies beside the borrowed interpreter.
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KALAM_"))}
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.empty,
            env=environment | {"PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STARTED_S,
        )


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source archive and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run_python("-m", "build", "--no-isolation", "--outdir", str(folder), str(CHECKOUT))
    return folder


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    (wheel,) = archives.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installation")
    venv.create(folder, symlinks=True)
    flags = ("--quiet", "--no-compile", "--no-deps", "--no-index")
    run_python("-m", "pip", "--python", str(folder), "install", *flags, str(wheel))
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file does not have its own .pth files read: no editable install is borrowed with it.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    return Installation(folder, tmp_path_factory.mktemp("empty"))


def run_python(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_adds_three_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in members(wheel)}
    assert tops == {"kalam", "kalam_nats", "kalam_http", "kalam_pg", f"kalam_server-{__version__}.dist-info"}


def test_the_wheel_holds_all_that_a_server_reads(wheel: Path) -> None:
    names = members(wheel)
    for package in ("kalam", "kalam_nats", "kalam_http", "kalam_pg"):
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= set(names)
    assert "kalam/migrations/m001_first_release.py" in names
    assert [name for name in names if name.startswith("kalam/") and "earthquakes" in name], "the data of the demo"
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_description_for_a_package_index_has_no_path_of_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    raw, page = "https://raw.githubusercontent.com/kalam-db/kalam/main/", "https://github.com/kalam-db/kalam/blob/main/"
    assert {f"{raw}.github/console.png", f"{page}kalam/manual/tutorial.md"} <= set(links)
    assert [link for link in links if not link.startswith("https://")] == []


def test_every_page_of_the_manual_is_in_the_wheel(wheel: Path) -> None:
    pages = {file.name for file in (CHECKOUT / "kalam" / "manual").iterdir()}
    assert {name.rpartition("/")[2] for name in members(wheel) if name.startswith("kalam/manual/")} == pages


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    roots = ("kalam", CHECKOUT), ("migrations", CHECKOUT), (".", CHECKOUT / "bridges")
    paths = {file.relative_to(base) for folder, base in roots for file in (base / folder).rglob("*.py")}
    inside = {str(Path("kalam") / path if path.parts[0] == "migrations" else path) for path in paths}
    assert inside == {name for name in members(wheel) if name.endswith(".py")}


def test_the_source_archive_holds_the_tests_and_no_leftovers(archives: Path) -> None:
    (source,) = archives.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "compose.yaml", "tests/test_wheel.py"} <= names
    assert "migrations/m001_first_release.py" in names
    assert not [name for name in names if re.search(r"__pycache__|kalam-data|\.venv|(^|/)\.\w+_cache", name)]


def test_the_installed_wheel_is_imported_from_where_it_was_installed(installation: Installation) -> None:
    names = "kalam, kalam_nats, kalam_http, kalam_pg, kalam.migrations"
    done = installation.run("python", "-c", f"import {names}\nfor m in ({names}): print(m.__file__)")
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(installation.folder) for line in done.stdout.splitlines())


def test_the_installed_wheel_has_no_package_with_an_everyday_name(installation: Installation) -> None:
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('bridges', 'migrations', 'tests'))))"
    assert installation.run("python", "-c", code).returncode == 0


def test_the_installed_command_tells_its_version(installation: Installation) -> None:
    done = installation.run("kalam", "--version")
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_the_demo_runs_in_an_empty_folder(installation: Installation) -> None:
    done = installation.run("kalam", "demo", "--fast")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(kind in done.stdout + done.stderr for kind in ("STREAM", "SHARED", "USER"))


def test_the_lock_file_comes_from_pypi_alone() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (CHECKOUT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_lock_file_locks_what_pyproject_asks_for() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = {pinned(text) for texts in (project["dependencies"], *extras) for text in texts}
    packages = tomllib.loads((CHECKOUT / "uv.lock").read_text())["package"]
    (own,) = (package for package in packages if package["name"] == project["name"])
    assert {pinned(entry["name"] + entry["specifier"]) for entry in own["metadata"]["requires-dist"]} == asked


def pinned(requirement: str) -> tuple[str, SpecifierSet]:
    parsed = Requirement(requirement)
    return canonicalize_name(parsed.name), parsed.specifier
