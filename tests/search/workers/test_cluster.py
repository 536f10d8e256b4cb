"""A study on a real Ray cluster: several raylets on this machine, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from objectives.host.durable import damaged
from search.study import records
from tests.search.conftest import TOML
from tests.search.place import PATIENCE, REPOSITORY, Place, check_whole, is_gone, wait_for

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
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode != 0,
        reason="Ray is not installed: pip install -e '.[ray]'",
    ),
]


class Nodes:
    """A head without room and two nodes of one CPU each, in a process of their own."""

    def __init__(self, place: Place) -> None:
        ours = {
            **{"PYTHONPATH": str(REPOSITORY), "SCRIPT": str(place.folder / "script.json")},
            **{"FRONTRUNNER_RUN_DIR": str(place.folder / "run"), "RAY_USAGE_STATS_ENABLED": "0"},
            "RAY_worker_niceness": "0",  # else 15: beside other programs they would starve
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
        self._process.wait(timeout=PATIENCE)
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


def eventually(claim: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether the claim comes true within the time."""
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.1)
    return claim()


def run_on(nodes: Nodes, name: str, *words: str) -> tuple[str, ...]:
    """The words of a run of a study of that name on the cluster."""
    return ("--study", "tiny", "--as", name, "--cluster", nodes.address, "-v", *words)


def test_a_node_that_is_killed_loses_one_trial_and_the_study_ends_whole(place: Place, nodes: Nodes) -> None:
    place.script(pause=0.3, hang=20)
    with place.started(*run_on(nodes, "killed", "--json", "--n-trials", "9")) as process:
        wait_for(process, "trial 1: epoch 1 of")
        nodes.kill()
        out, err = process.communicate(timeout=PATIENCE)
    nodes.add()
    assert process.returncode == 0, err
    trials = place.trials("killed")
    check_whole(trials, 9)
    assert place.reasons("killed").count(records.LOST) == 1
    assert len([t for t in trials if records.RETRY_OF in t.user_attrs]) == 1
    assert json.loads(out)["trials"]["complete"] == 9  # and Ray printed nothing beside it
    assert not [pid for pid in workers(place) if not is_gone(pid)]


def test_a_worker_moves_to_a_new_node_when_its_own_is_lost(place: Place, nodes: Nodes) -> None:
    place.script(pause=0.3, hang=20)
    with place.started(*run_on(nodes, "moved", "--n-trials", "1000")) as process:
        wait_for(process, "trial 1: epoch 1 of")
        before = set(workers(place))
        nodes.kill()
        wait_for(process, "its worker was lost")
        nodes.add()
        assert eventually(lambda: len(set(workers(place)) - before) > 1)  # one may be a worker of the other node
        wait_for(process, "epoch 1 of")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    reasons = place.reasons("moved")
    assert reasons.count(records.LOST) == 1
    assert "running" not in reasons


def test_a_study_on_a_cluster_is_the_one_on_this_host_trial_by_trial(place: Place, nodes: Nodes) -> None:
    befalls = {0: "SIGSEGV", 1: "out_of_memory", 3: "hang", 5: "device_lost", 6: "inf"}
    befalls |= dict.fromkeys(range(9, 20), "slow")
    studies = []
    for name, words in (("there", run_on(nodes, "there", "--workers", "1")), ("here", ("--study", "tiny"))):
        place.script(befalls, hang=10)
        done = place.run(*words, "--as", name, "--n-trials", "18", "--sampler", "tpe")
        assert done.code == 0, done.err
        folders = sorted((place.folder / "studies" / "artifacts" / name).iterdir())
        assert not [file for folder in folders for file in damaged(folder)]
        trials = [(records.reason(t), t.values, t.params) for t in place.trials(name)]
        studies.append((trials, [folder.name for folder in folders]))
    there, here = studies
    assert {"crash", "out_of_memory", "hang", "diverged", "dominated"} < {reason for reason, *_ in there[0]}
    assert there == here


def test_a_study_goes_on_after_an_interruption_and_after_a_kill(place: Place, nodes: Nodes) -> None:
    place.script(pause=0.5, hang=20)
    with place.started(*run_on(nodes, "twice", "--n-trials", "1000")) as process:
        wait_for(process, "trial 1: epoch 1 of")
        place.script(room=2)  # for whoever starts now
        crowded = place.run(*run_on(nodes, "crowded"))
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (crowded.code, process.returncode) == (5, 130), crowded.err + err
    assert "has had no room for 2 workers on cpu" in crowded.err.splitlines()[-1]
    assert f"to go on: python -m search.run --study tiny --as twice --cluster {nodes.address} -v" in err
    assert not {"running", "crash", records.LOST} & set(place.reasons("twice"))
    assert eventually(lambda: not workers(place))
    place.script(pause=0.5, hang=20)
    with place.started(*run_on(nodes, "twice", "--n-trials", "1000")) as process:
        wait_for(process, ": epoch 1 of")
        process.kill()
        process.communicate()
    assert eventually(lambda: not workers(place))
    place.script()
    done = place.run(*run_on(nodes, "twice", "--n-trials", "30"))
    assert "was lost with the process that ran it: it is queued again" in done.err
    check_whole(place.trials("twice"), 30)


def test_devices_of_two_models_are_refused_unless_asked_for(place: Place, nodes: Nodes) -> None:
    place.script(models=["a device", "another device"])
    refused = place.run(*run_on(nodes, "mixed"))
    assert refused.code == 2
    assert "cannot use devices that differ: device.model was" in refused.err.splitlines()[-1]
    assert "or begin a study with --mixed-devices" in refused.err
    assert place.run(*run_on(nodes, "mixed", "--mixed-devices", "--n-trials", "2")).code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--workers", "3"], 5, "3 workers asked for, but the cluster has 2 CPUs"),
        (["--devices", "cuda"], 5, "the cluster has 0 GPUs"),
        (["--devices", "0,1"], 2, "--devices 0,1: on a cluster choose cpu or cuda"),
        (["--in-process"], 2, "choose one"),
        (["--cluster", "ray://127.0.0.1:1"], 5, "does not answer"),
        (["--cluster", "ray://nowhere"], 2, "choose ray (one on this machine) or ray://HOST:PORT"),
    ],
)
def test_what_no_cluster_can_give_is_said_in_one_line(
    words: list[str], code: int, said: str, place: Place, nodes: Nodes
) -> None:
    done = place.run(*run_on(nodes, "none", *words))
    assert done.code == code
    assert said in done.err
    assert len([line for line in done.err.splitlines() if not line.startswith("optuna-dashboard or plotly")]) == 1
