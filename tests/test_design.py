"""The architecture: dependencies run one way, the light parts stay light, nothing grows out of hand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("frontrunner", "search", "spaces", "objectives")
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
BENCHMARKS = sorted((REPOSITORY / "benchmarks").rglob("*.py"))
FORBIDDEN = {
    "objectives": ("frontrunner", "search", "spaces", "optuna", "optuna_dashboard"),
    "spaces": ("frontrunner", "search", "torch", "optuna_dashboard"),
    "search": ("frontrunner",),
    "frontrunner": (),
}
# From the top floor down; a room, or a file of it that stands on a floor of its own.
FLOORS = (
    ("frontrunner",),
    ("search.run", "search.__main__", "search.commands"),
    (
        "search.ablating",
        "search.session",
        "search.minutes",
        "search.base",
        "search.reducing",
        "search.reducible",
        "search.training",
        "search.invocation",
        "search.crew",
        "search.trial",
        "search.simulation",
    ),
    ("search.views", "search.workers"),
    ("search.ablation",),
    (  # a study at work asks what to try next, and what there is time for: both know what it remembers, and not it
        "search.study.study",
        "search.study.opening",
        "search.study.queue",
        "search.study.recovery",
        "search.study.files.unheeded",
    ),
    ("search.planning",),
    ("search.proposals",),
    ("search.study",),
    ("search.database",),
    ("search.host",),
    ("search.pareto", "search.errors"),
    ("spaces",),
    ("objectives.objective", "objectives.mirroring", "objectives.repeated", "objectives.confusion"),
    ("objectives.reduction",),
    ("objectives.train", "objectives.export", "objectives.evaluation", "objectives.inference"),
    ("objectives.feasibility", "objectives.work", "objectives.device", "objectives.modelled"),
    (
        "objectives.strategies",
        "objectives.state",
        "objectives.pipeline",
        "objectives.device.formats",
        "objectives.starts",
    ),
    ("objectives.data",),
    ("objectives.networks",),
    (
        "objectives.task",
        "objectives.host",
        "objectives.errors",
        "objectives.words",
        "objectives.inference.folder",
        "objectives.reduction.settings",
        "objectives.modelled.machine",
        "objectives.modelled.assumptions",
    ),
)
MOST_FILES = 14  # of a room; more is a corridor
READS_WEIGHTS = REPOSITORY / "objectives/starts/weights.py"  # of others: tensors alone, by torch's restricted reader


def test_every_package_says_that_it_is_typed() -> None:
    assert [name for name in PACKAGES if not (REPOSITORY / name / "py.typed").is_file()] == []


def module(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int | None:
    """The floor that a module stands on, 0 the topmost; None for a package that is none of the rooms."""
    places = {place: number for number, floor in enumerate(FLOORS) for place in floor}
    parts = name.split(".")
    heads = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((places[head] for head in heads if head in places), None)


def of_ours(path: Path, *, at_run_time: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of every module of ours that a file imports; `at_run_time`: without those for types only."""
    known = {module(each) for each in FILES}
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if at_run_time and id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            parts = {f"{node.module}.{alias.name}" for alias in node.names} & known
            yield from ((node.lineno, part) for part in parts or {node.module})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_run_down_or_stay_on_their_floor(path: Path) -> None:
    here = floor(module(path))
    if here is None:  # the package of a whole floor plan
        return
    upwards = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}, which stands higher"
        for line, name in of_ours(path)
        if (there := floor(name)) is not None and there < here
    ]
    assert not upwards


def test_every_file_stands_on_a_floor() -> None:
    assert [str(path) for path in FILES if floor(module(path)) is None and path.name != "__init__.py"] == []


def test_no_import_at_run_time_leads_back_to_where_it_began() -> None:
    arrows = {module(path): {name for _, name in of_ours(path, at_run_time=True)} for path in FILES}
    assert list(TopologicalSorter(arrows).static_order())


@pytest.mark.parametrize("room", sorted({path.parent for path in FILES}), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_room_is_a_corridor(room: Path) -> None:
    if room.name == "strategies":  # a file each, found by itself: a shelf
        return
    assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= MOST_FILES


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_dependencies_run_one_way(path: Path) -> None:
    package = path.relative_to(REPOSITORY).parts[0]
    assert not imports(path) & set(FORBIDDEN[package])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES + BENCHMARKS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_function_is_too_long(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    assert [(name, length) for name, length in lengths if length > 50] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_durations_come_from_clocks_that_do_not_jump(path: Path) -> None:
    assert "time.time(" not in path.read_text(), "use time.monotonic or time.perf_counter"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_nothing_that_is_read_can_run(path: Path) -> None:
    text = path.read_text()
    for name in ("pickle", "marshal", "shelve"):
        assert name not in imports(path)
    if path == READS_WEIGHTS:
        (call,) = re.findall(r"torch\.load\([^()]*\)", text)
        assert call.endswith(", weights_only=True)")
        text = text.replace(call, "")
    for call in ("torch.load(", "weights_only", "eval(", "exec(", "shell=True", "os.system(", "os.popen("):
        assert not re.search(rf"(?<![\w.]){re.escape(call)}", text), call


def loaded_by(code: str) -> set[str]:
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


HEAVY = {"torch", "torchvision", "sklearn", "plotly", "optuna_dashboard", "jinja2", "pandas", "matplotlib"}


@pytest.mark.parametrize(
    "code",
    [
        "import search.run; search.run.main(['--help'])",
        "import search.run; search.run.main(['--study', 'no_such_study'])",
        "import search.run; search.run.main(['--study', 'digits_pareto', '--data', 'nonsense'])",
        "from search.__main__ import main; main(['confirm', '--study', 'none'])",
        "from search.__main__ import main; main('reduce --model none --data digits -o new'.split())",
        "from search.__main__ import main; main(['best', '--study', 'none', '--storage', 'sqlite:///none.db'])",
        "from search.__main__ import main; main('train --pipeline none --data digits -o new'.split())",
        "from search.__main__ import main; main('compare one other --storage sqlite:///none.db'.split())",
        "from search.__main__ import main; main(['predict', '--model', 'none', '--images', 'none', '-o', 'none.csv'])",
        "from search.__main__ import main; main(['data', 'no_such_folder']); main(['cache', 'show'])",
        "from search.commands import dashboard, doctor; from search.__main__ import main; main(['studies', 'list'])",
        "from search.__main__ import main; main(['report', '--study', 'none'])",
        "import frontrunner; frontrunner.Front(), frontrunner.Model, frontrunner.load",
        "import frontrunner\n    try: frontrunner.load('x', 'y.db')\n    except ValueError: pass",
        "import search.session, search.crew, search.views.summary, search.views.figures, spaces, objectives.pipeline",
    ],
)
def test_the_process_that_owns_a_study_stays_light(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_a_worker_needs_little_beside_torch() -> None:
    loaded = loaded_by("import objectives.objective, search.workers.process")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "sklearn", "plotly", "optuna_dashboard", "rich", "PIL"}
