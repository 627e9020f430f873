"""Which module may import which: README.md draws the rule, and this file holds it.

The sources are read, not run, so an import inside a function, a type-checking block or ``import_module("…")`` counts
like one at the top. Only what is written counts: that importing ``kalam.sql.parser`` also runs
``kalam/sql/__init__.py`` is no import of it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

# From the bottom to the top: a layer imports itself and what stands before it. `kalam` alone is `kalam/__init__.py`,
# which runs before every other module; the migrations are frozen once released, so they lean on nothing that changes.
LAYERS = (
    ("kalam", "kalam.migrations"),
    (
        *("kalam.errors", "kalam.names", "kalam.settings", "kalam.imports"),
        *(
            "kalam.threads",
            "kalam.tasks",
            "kalam.backoff",
            "kalam.urls",
            "kalam.kept_logins",
            "kalam.credentials",
            "kalam.tls",
            "kalam.listening",
            "kalam.latency",
            "kalam.tracing",
            "kalam.manual_pages",
            "kalam.start_checks",
            "kalam.sql_words",
        ),
    ),
    ("kalam.schema", "kalam.table_kinds", "kalam.table_options", "kalam.timestamp_unit", "kalam.foreign", "kalam.rows"),
    ("kalam.sql",),
    ("kalam.views.shape",),
    ("kalam.views.groups",),
    ("kalam.storage.log",),
    ("kalam.storage.segments",),
    ("kalam.storage",),
    ("kalam.storage.work",),
    ("kalam.storage.backup",),
    ("kalam.lake",),
    ("kalam.access",),
    ("kalam.tables",),
    ("kalam.query",),
    ("kalam.live",),
    ("kalam.views",),
    ("kalam.engine",),
    ("kalam_nats.subjects", "kalam_nats.broker", "kalam_http", "kalam_pg"),
    ("kalam_nats.streams", "kalam_nats.access"),
    ("kalam_nats.door",),
    ("kalam_nats",),
    ("kalam.logs", "kalam.metrics", "kalam.spans", "kalam.garbage_collection", "kalam.allocator"),
    ("kalam.assembly",),
    ("kalam.server", "kalam.outside"),
    ("kalam.process",),
    ("kalam.client", "kalam.cli", "kalam.bench", "kalam.__main__"),
)
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
BRIDGES = ("kalam_nats", "kalam_http", "kalam_pg")
COMPOSITION = ("kalam.server", "kalam.assembly", "kalam.outside")
OUTSIDE = ("nats", "starlette", "uvicorn")
MAY_KNOW_THE_OUTSIDE = (*BRIDGES, "kalam.client", "kalam.cli", "kalam.bench")
LENT = "kalam.client"
"""What `kalam` gives away as its own: only its `__getattr__`, run for who asks, and type checkers may name it."""


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed source file under the name that it is imported by."""

    name: str
    is_package: bool
    tree: ast.Module


def read_modules(checkout: Path) -> dict[str, Module]:
    """Every module of a checkout by the name that it has for Python."""
    roots = (checkout / "kalam", "kalam"), (checkout / "migrations", "kalam.migrations"), (checkout / "bridges", "")
    modules = (read_module(file, base, package) for base, package in roots for file in base.rglob("*.py"))
    return {module.name: module for module in modules}


def read_module(file: Path, base: Path, package: str) -> Module:
    is_package = file.name == "__init__.py"
    path = file.relative_to(base)
    parts = (path.parent if is_package else path.with_suffix("")).parts
    return Module(".".join(filter(None, (package, *parts))), is_package, ast.parse(file.read_text()))


def imported_names(module: Module) -> Iterator[str]:
    """The full name of everything that the module imports, ``a.b.c`` for ``from a.b import c``."""
    yield from names_imported_in(module.tree, module)


def names_imported_in(tree: ast.AST, module: Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(names=names):
                origin = absolute_origin(node, module)
                yield from (f"{origin}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def absolute_origin(node: ast.ImportFrom, module: Module) -> str:
    """What stands between ``from`` and ``import``, its leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def lent_names(module: Module) -> set[str]:
    """What `kalam` names of `LENT` where that is allowed, and nowhere else."""
    if module.name != "kalam":
        return set()
    allowed = [node for node in module.tree.body if is_asked_for(node)]
    others = [node for node in module.tree.body if not is_asked_for(node)]
    named = {name for node in allowed for name in names_imported_in(node, module) if inside(name, (LENT,))}
    return named - {name for node in others for name in names_imported_in(node, module)}


def is_asked_for(node: ast.stmt) -> bool:
    match node:
        case ast.FunctionDef(name="__getattr__"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
            return True
    return False


def inside(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def nearest(name: str, known: Mapping[str, object]) -> str | None:
    """The longest leading part of ``name`` that is known: the module that holds an imported attribute."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def part_of(module: str) -> str | None:
    """The part of the picture that a module belongs to; ``kalam`` itself is no parent of the others here."""
    part = nearest(module, RANKS)
    return None if part == "kalam" and module != "kalam" else part


def violations(checkout: Path) -> list[str]:
    """Every breach of the rule in a checkout, in words."""
    modules = read_modules(checkout)
    found = [f"{name} stands in no layer" for name in modules if part_of(name) is None]
    graph: dict[str, set[str]] = {}
    for name, module in modules.items():
        imports = set(imported_names(module)) - lent_names(module)
        targets = {target for target in (nearest(imported, modules) for imported in imports) if target} - {name}
        graph[name] = targets
        found += [f"{name} imports {other}" for other in sorted(imports) if reaches_outside(name, other)]
        found += [f"{name} imports {target}" for target in sorted(targets) if breaks_order(name, target)]
    return found + cycles(graph)


def reaches_outside(name: str, imported: str) -> bool:
    return inside(imported, OUTSIDE) and not inside(name, MAY_KNOW_THE_OUTSIDE)


def breaks_order(name: str, target: str) -> bool:
    mine, other = part_of(name), part_of(target)
    if mine is None or other is None or mine == other:
        return False
    if inside(target, BRIDGES) and not inside(name, (target.partition(".")[0],)):
        return mine not in COMPOSITION
    if mine is not None and inside(name, BRIDGES) and target.startswith("kalam.engine."):
        return True  # a door comes in by the door
    return RANKS[other] > RANKS[mine]


def cycles(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return [f"cycle: {' → '.join(reversed(exc.args[1]))}"]
    return []


def test_every_import_goes_down_the_layers() -> None:
    assert violations(CHECKOUT) == []


def test_kalam_alone_imports_nothing_of_kalam() -> None:
    command = "import kalam, sys; print([name for name in sys.modules if name.startswith('kalam')])"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout == "['kalam']\n"


def test_the_distribution_of_the_client_has_all_that_the_client_imports() -> None:
    modules = read_modules(CHECKOUT)
    wanted = {name for name in modules if inside(name, (LENT,))}
    while more := {found for name in wanted for found in imported_modules(modules[name], modules)} - wanted:
        wanted |= more
    project = tomllib.loads((CHECKOUT / "kalam" / "client" / "pyproject.toml").read_text())
    files = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].values()
    named = {name for file in files if (name := module_name(file)) is not None}
    assert named == wanted | {"kalam", "kalam.__main__"}, (
        "kalam/client/pyproject.toml names others than the client imports"
    )


def imported_modules(module: Module, modules: Mapping[str, Module]) -> set[str]:
    return {found for name in imported_names(module) if (found := nearest(name, modules)) is not None}


def module_name(file: str) -> str | None:
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__") if file.endswith(".py") else None


def test_the_migrations_are_a_part_of_kalam() -> None:
    assert "kalam.migrations.m001_first_release" in read_modules(CHECKOUT)


SOUND = {
    "kalam/__init__.py": "if TYPE_CHECKING:\n    from kalam.client import link\n\n"
    "def __getattr__(name):\n    from kalam import client",
    "kalam/__main__.py": "from kalam.cli.main import main",
    "kalam/errors.py": "import enum",
    "kalam/schema.py": "from kalam.errors import KalamError",
    "kalam/migrations/__init__.py": "import pkgutil",
    "migrations/m001_first_release.py": "import sqlite_utils",
    "kalam/storage/__init__.py": "from kalam.storage.database import Database",
    "kalam/storage/database.py": "from kalam import __version__, migrations\nfrom ..schema import Table",
    "kalam/tables/__init__.py": "import kalam.storage",
    "kalam/live/registry.py": "from kalam.tables import Row",
    "kalam/engine/__init__.py": "from kalam import live, tables",
    "kalam/engine/dispatch.py": "",
    "bridges/kalam_nats/__init__.py": "import nats\nfrom . import ingest",
    "bridges/kalam_nats/ingest.py": "from kalam.engine import Engine",
    "bridges/kalam_http/__init__.py": "import starlette",
    "kalam/server.py": "import kalam_nats, kalam_http\nfrom kalam.engine import Engine",
    "kalam/client/__init__.py": "import nats",
    "kalam/cli/main.py": "def serve():\n    import uvicorn\n    from kalam.server import Server",
}


def write_tree(folder: Path, sources: Mapping[str, str]) -> Path:
    for path, source in sources.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return folder


def test_a_sound_tree_breaks_nothing(tmp_path: Path) -> None:
    assert violations(write_tree(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("kalam/errors.py", "from kalam.schema import Table", "kalam.errors imports kalam.schema"),
        ("kalam/errors.py", "from kalam import schema", "kalam.errors imports kalam.schema"),
        ("kalam/errors.py", "def late():\n    import kalam.schema", "kalam.errors imports kalam.schema"),
        ("kalam/errors.py", "if TYPE_CHECKING:\n    from .schema import Table", "kalam.errors imports kalam.schema"),
        ("kalam/errors.py", "importlib.import_module('kalam.schema')", "kalam.errors imports kalam.schema"),
        ("kalam/__init__.py", "from kalam.errors import KalamError", "kalam imports kalam.errors"),
        ("kalam/__init__.py", "from kalam.client import connect", "kalam imports kalam.client"),
        ("kalam/__init__.py", "def connect():\n    import kalam.client", "kalam imports kalam.client"),
        ("kalam/__init__.py", "def __getattr__(name):\n    import kalam.errors", "kalam imports kalam.errors"),
        ("kalam/__init__.py", "if TYPE_CHECKING:\n    import kalam.server", "kalam imports kalam.server"),
        (
            "kalam/__init__.py",
            "import kalam.client\ndef __getattr__(name):\n    import kalam.client",
            "kalam imports kalam.client",
        ),
        ("kalam/errors.py", "def __getattr__(name):\n    import kalam.client", "kalam.errors imports kalam.client"),
        ("migrations/first.py", "import kalam.schema", "kalam.migrations.first imports kalam.schema"),
        ("kalam/storage/flush.py", "from ..live import registry", "kalam.storage.flush imports kalam.live.registry"),
        (
            "kalam/storage/log/b.py",
            "import kalam.storage.database",
            "kalam.storage.log.b imports kalam.storage.database",
        ),
        ("bridges/kalam_nats/door/b.py", "import kalam_nats.ingest", "kalam_nats.door.b imports kalam_nats.ingest"),
        ("kalam/engine/__init__.py", "import kalam.server", "kalam.engine imports kalam.server"),
        ("kalam/engine/__init__.py", "import kalam_nats", "kalam.engine imports kalam_nats"),
        ("kalam/engine/__init__.py", "import nats.js", "kalam.engine imports nats.js"),
        ("kalam/server.py", "def late():\n    import uvicorn", "kalam.server imports uvicorn"),
        ("kalam/cli/main.py", "import kalam_http", "kalam.cli.main imports kalam_http"),
        ("kalam/client/live.py", "from kalam_nats import ingest", "kalam.client.live imports kalam_nats.ingest"),
        ("bridges/kalam_nats/ingest.py", "import kalam_http", "kalam_nats.ingest imports kalam_http"),
        ("bridges/kalam_nats/ingest.py", "import kalam.server", "kalam_nats.ingest imports kalam.server"),
        (
            "bridges/kalam_nats/ingest.py",
            "from kalam.engine import dispatch",
            "kalam_nats.ingest imports kalam.engine.dispatch",
        ),
        ("kalam/extras.py", "", "kalam.extras stands in no layer"),
        ("bridges/kalam_mqtt/__init__.py", "", "kalam_mqtt stands in no layer"),
    ],
)
def test_a_breach_is_found_and_named(tmp_path: Path, path: str, source: str, breach: str) -> None:
    assert breach in violations(write_tree(tmp_path, SOUND | {path: source}))


def test_a_cycle_is_found_though_it_hides_in_a_function(tmp_path: Path) -> None:
    sources = SOUND | {
        "kalam/storage/work/flush.py": "from kalam.storage.work import jobs",
        "kalam/storage/work/jobs.py": "def late():\n    from kalam.storage.work.flush import Flush",
    }
    (breach,) = violations(write_tree(tmp_path, sources))
    assert breach.startswith("cycle: ")
    assert {"kalam.storage.work.flush", "kalam.storage.work.jobs"} <= set(breach.removeprefix("cycle: ").split(" → "))
