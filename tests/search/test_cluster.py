"""A study on a real Ray cluster: several raylets on this machine, one of which is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from search import records

from .conftest import TOML
from .place import REPOSITORY, Place, check_whole, is_gone, wait_for

NODES = """
import sys
from ray.cluster_utils import Cluster

detection = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 5}
node = {"include_dashboard": False, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "_system_config": detection})
nodes = [cluster.add_node(num_cpus=1, **node) for _ in range(2)]
print(cluster.address, flush=True)
for command in sys.stdin:
    if command == "kill\\n":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    else:
        nodes.append(cluster.add_node(num_cpus=1, **node))
    print("done", flush=True)
cluster.shutdown()
"""
pytestmark = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode != 0,
    reason="Ray is not installed: pip install -e '.[ray]'",
)


class Nodes:
    """A head without room and two nodes of one CPU each, in a process of their own."""

    def __init__(self, place: Place) -> None:
        ours = {
            **{"PYTHONPATH": str(REPOSITORY), "SCRIPT": str(place.folder / "script.json")},
            **{"FRONTRUNNER_RUN_DIR": str(place.folder / "run"), "RAY_USAGE_STATS_ENABLED": "0"},
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", NODES],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL},
            **{"text": True, "env": os.environ | ours, "cwd": place.folder},
        )
        address = self._said()
        assert address, "the cluster did not start: Ray gives each of its processes 30 s, which a busy machine may need"
        self.address = f"ray://{address}"

    def kill(self) -> None:
        """SIGKILL to the raylet of a node."""
        self._do("kill")

    def add(self) -> None:
        """A node more."""
        self._do("add")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()  # type: ignore[union-attr]

    def _do(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._said() == "done"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A working directory for all tests here: a cluster takes seconds to start, and knows one script."""
    made = Place(tmp_path_factory.mktemp("place"))
    (made.folder / "studies").mkdir()
    (made.folder / "studies" / "tiny.toml").write_text(TOML)
    return made


@pytest.fixture(scope="module")
def nodes(place: Place) -> Iterator[Nodes]:
    """A cluster, which every test leaves as it was."""
    made = Nodes(place)
    yield made
    made.close()


def workers(place: Place) -> list[int]:
    """Templates and workers of the place that live."""
    ours, found = f"FRONTRUNNER_RUN_DIR={place.folder}/run".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = ours in (folder / "environ").read_bytes()
            if is_ours and (folder / "comm").read_text().startswith("trains-"):
                found.append(int(folder.name))
    return found


def eventually(claim: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether the claim comes true within the time."""
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.1)
    return claim()


def run_on(nodes: Nodes, name: str, *words: str) -> tuple[str, ...]:
    """The words of a run of a study of that name on the cluster."""
    return ("--study", "tiny", "--as", name, "--cluster", nodes.address, "-v", *words)


def test_a_node_that_is_killed_loses_one_trial_and_the_study_ends_whole(place: Place, nodes: Nodes) -> None:
    place.script(pause=0.3)
    with place.started(*run_on(nodes, "killed", "--json", "--n-trials", "9")) as process:
        wait_for(process, "trial 1: epoch 1 of")
        nodes.kill()
        out, err = process.communicate(timeout=100)
    nodes.add()
    assert process.returncode == 0, err
    trials = place.trials("killed")
    check_whole(trials, 9)
    assert place.reasons("killed").count(records.LOST) == 1
    assert len([t for t in trials if records.RETRY_OF in t.user_attrs]) == 1
    assert json.loads(out)["trials"]["complete"] == 9  # and Ray printed nothing beside it
    assert not [pid for pid in workers(place) if not is_gone(pid)]


def test_a_worker_moves_to_a_new_node_when_its_own_is_lost(place: Place, nodes: Nodes) -> None:
    place.script(pause=0.3)
    with place.started(*run_on(nodes, "moved", "--n-trials", "1000")) as process:
        wait_for(process, "trial 1: epoch 1 of")
        before = set(workers(place))
        nodes.kill()
        wait_for(process, "its worker was lost")
        nodes.add()
        assert eventually(lambda: len(set(workers(place)) - before) == 2)  # a template and its worker
        wait_for(process, "epoch 1 of")
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    reasons = place.reasons("moved")
    assert reasons.count(records.LOST) == 1
    assert "running" not in reasons


def test_faults_of_a_training_are_told_as_those_of_a_worker_on_this_host(place: Place, nodes: Nodes) -> None:
    place.script({0: "SIGSEGV", 1: "out_of_memory", 3: "hang", 5: "device_lost", 6: "inf"}, hang=2)
    done = place.run(*run_on(nodes, "faults", "--n-trials", "10"))
    assert done.code == 0, done.err
    check_whole(place.trials("faults"), 10)
    reasons = place.reasons("faults")
    assert sorted(r for r in reasons if r != "complete") == ["crash", "diverged", "hang", "out_of_memory"]
    kept = {path.name for path in (place.folder / "studies" / "artifacts" / "faults").iterdir()}
    assert kept == {f"trial-{point.trial:05d}" for point in records.pareto_front(place.trials("faults"), 0.2)}


@pytest.mark.parametrize(
    ("cluster", "code", "said"),
    [
        ("ray://127.0.0.1:1", 5, "does not answer"),
        ("ray://nowhere", 2, "choose ray (one on this machine) or ray://HOST:PORT"),
    ],
)
def test_a_cluster_that_does_not_answer_is_said_in_one_line(cluster: str, code: int, said: str, place: Place) -> None:
    done = place.run("--study", "tiny", "--as", "none", "--cluster", cluster)
    assert done.code == code
    assert said in done.err
    assert len(done.err.splitlines()) == 1
