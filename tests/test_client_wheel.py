"""The distribution kalam-client: installed with nothing but what it asks for, it speaks to a server."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from patience import PATIENCE_S
from server_process import ServerProcess

from kalam import __version__

CHECKOUT = Path(__file__).parents[1]
CLIENT = CHECKOUT / "kalam" / "client"
SERVERS_OWN = (
    "datafusion",
    "starlette",
    "uvicorn",
    "fastparquet",
    "pyarrow",
    "pandas",
    "numpy",
    "sqlglot",
    "pyiceberg",
    "typer",
)
PROGRAM = """
import asyncio, sys
import kalam

async def main(url):
    async with kalam.connect(url, user="ada", namespace="c") as k:
        await k.insert("t", [{"id": number, "v": "x" * 100} for number in range(1_000)])
        async with k.live("SELECT id FROM c.t WHERE id >= 1000") as live:
            await k.insert("t", {"id": 1_000})
            print(next(iter([change.row async for change in first(live)])))

async def first(live):
    async for change in live:
        yield change
        return

asyncio.run(main(sys.argv[1]))
with kalam.connect_sync(sys.argv[1], user="ada", namespace="c") as k:
    print(k.sql("SELECT count(*) AS n FROM t").rows)
    with k.stream("SELECT id FROM t ORDER BY id") as rows:
        print(sum(row["id"] for row in rows))
    try:
        k.sql("SELECT count(*) AS n FROM t").pandas()
    except ImportError as exc:
        print(exc)
    try:
        k.insert("t", {"id": 1})
    except kalam.errors.DuplicateKey as exc:
        print(exc.code)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CLIENT))
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, and of the running one what the wheel asks for."""
    folder = tmp_path_factory.mktemp("installation")
    venv.create(folder, symlinks=True)
    flags = ("--quiet", "--no-compile", "--no-deps", "--no-index")
    run(sys.executable, "-m", "pip", "--python", str(folder), "install", *flags, str(wheel))
    [packages] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        asked = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    for needed in asked_for(asked):
        for top in {file.parts[0] for file in needed.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(needed.locate_file(top))))
    return folder / "bin" / "python"


def asked_for(requirements: list[str]) -> Iterator[Distribution]:
    """The installed distributions that are asked for, and what those ask for, without any extra."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = distribution(requirement.name)
            assert requirement.specifier.contains(found.version, prereleases=True)
            yield found
            yield from asked_for(found.requires or [])


def run(*command: str) -> str:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_speaks_to_a_server(python: Path, start_kalam: Callable[..., ServerProcess]) -> None:
    server = start_kalam()
    server.sql("CREATE NAMESPACE c; CREATE TABLE c.t (id BIGINT PRIMARY KEY, v TEXT)")
    assert run(str(python), "-c", PROGRAM, server.nats_url).splitlines() == [
        "{'id': 1000}",
        "[{'n': 1001}]",
        str(sum(range(1_001))),
        "pandas() needs pandas: pip install pandas",
        "duplicate_key",
    ]


def test_it_brings_nothing_of_the_server(python: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {SERVERS_OWN} if find_spec(name)])"
    assert run(str(python), "-c", code) == "[]\n"


def test_the_command_says_what_brings_it(python: Path) -> None:
    for command in ([str(python), "-m", "kalam", "serve"], [str(python.parent / "kalam"), "sql", "SELECT 1"]):
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=PATIENCE_S)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: the command kalam is not part of kalam-client: pip install kalam-server\n"


def test_it_has_every_module_of_the_client_as_the_server_has_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name.endswith((".py", ".typed"))}
    assert {name for name in files if name.startswith("kalam/client/")} == {
        f"kalam/client/{path.name}" for path in CLIENT.glob("*.py")
    }
    assert files == {name: (CHECKOUT / name).read_bytes() for name in files}
    assert wheel.name.startswith(f"kalam_client-{__version__}-")


def test_what_it_asks_for_the_server_asks_for_alike() -> None:
    own, server = (tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (CLIENT, CHECKOUT))
    assert set(own["dependencies"]) <= set(server["dependencies"])
    assert set(own["optional-dependencies"]["nkeys"] + own["optional-dependencies"]["arrow"]) <= set(
        server["dependencies"]
    )
