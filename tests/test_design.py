"""The architecture: dependencies run one way, the light parts stay light, nothing grows out of hand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("search", "spaces", "objectives")
FILES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
FORBIDDEN = {
    "objectives": ("search", "spaces", "optuna", "optuna_dashboard"),
    "spaces": ("search", "torch", "optuna_dashboard"),
    "search": (),
}


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_durations_come_from_clocks_that_do_not_jump(path: Path) -> None:
    assert "time.time(" not in path.read_text(), "use time.monotonic or time.perf_counter"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_nothing_that_is_read_can_run(path: Path) -> None:
    text = path.read_text()
    for name in ("pickle", "marshal", "shelve"):
        assert name not in imports(path)
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
        "import search.doctor, search.studies, search.dashboard; search.studies.main(['list'])",
        "import search.session, search.crew, search.summary, search.figures, spaces, objectives.pipeline",
    ],
)
def test_the_process_that_owns_a_study_stays_light(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_a_worker_needs_little_beside_torch() -> None:
    loaded = loaded_by("import objectives.objective, search.worker")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "sklearn", "plotly", "optuna_dashboard", "rich", "PIL"}
