"""Laws of the journal: what was interrupted at any moment goes on as if nothing had happened, and on nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest

from objectives.data.dataset import Dataset
from objectives.export import ExportedModel, load_model
from objectives.networks.network import Network
from objectives.reduction.settings import Iteration, Reduction
from objectives.reduction.snare import reduced
from objectives.train import Trained
from tests.objectives.reduction.test_snare import ran, same, timeless

SETTINGS = Reduction(epsilon=0.03, epochs=1, smallest=0.16)

# Reduces a network with a journal in one process after the other, each of which is killed at its moment: while attempt
# n is made, or when a file of that name is about to be written after it. A fork, so that one process imports.
KILLED = """
import json, os, signal, sys, torch
from pathlib import Path
from objectives.data.dataset import load
from objectives.export import load_model
from objectives.reduction import crew, journal, snare
from objectives.networks.network import Network
from objectives.reduction.settings import Reduction
from objectives.task import DataSpec
torch.set_num_threads(1)
base, folder, settings, moments = load_model(sys.argv[1]), Path(sys.argv[2]), *map(json.loads, sys.argv[3:])
data = load(DataSpec("digits", n_train=500), torch.device("cpu"))
attempt, write = crew.attempt, journal.write_file

def die_at(moment, n):
    def dying_attempt(parent, candidate, *others):
        global number
        number = candidate.number
        outcome = attempt(parent, candidate, *others)
        if moment == "attempt" and number == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    def dying_write(path, content):
        if moment == path.suffix and number == n:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    crew.attempt, journal.write_file = dying_attempt, dying_write
    for _ in snare.reduced(base, data, Reduction.from_json(settings), 5, journal=folder):
        pass

for moment, n in moments:
    if not (child := os.fork()):
        die_at(moment, n)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def undisturbed(base_folder: Path, digits: Dataset) -> tuple[list[Iteration], Trained]:
    """The attempts of a reduction without a journal, and what it returns."""
    return ran(reduced(load_model(base_folder), digits, SETTINGS, seed=5))


def test_interrupted_after_every_attempt_it_comes_to_the_same_end(
    base: ExportedModel, digits: Dataset, undisturbed: tuple[list[Iteration], Trained], tmp_path: Path
) -> None:
    expected, whole = undisturbed
    for n in range(1, len(expected) + 1):
        reduction = reduced(base, digits, SETTINGS, seed=5, journal=tmp_path / "journal")
        told = [next(reduction) for _ in range(n)]
        reduction.close()
        assert timeless(told) == timeless(expected[:n])
    told, trained = ran(reduced(base, digits, SETTINGS, seed=5, journal=tmp_path / "journal"))
    assert timeless(told) == timeless(expected)
    assert same(trained, whole)
    assert trained.report.train_seconds == pytest.approx(sum(each.seconds for each in told))
    assert len(list((tmp_path / "journal").iterdir())) == 2, "the log and one network"


@pytest.mark.long  # a process that imports, and four that are killed: 16 s of CPU time
def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_happened(
    base_folder: Path,
    base: ExportedModel,
    digits: Dataset,
    undisturbed: tuple[list[Iteration], Trained],
    tmp_path: Path,
) -> None:
    expected, whole = undisturbed
    accepted = [each.number for each in expected if each.accepted]
    moments = [("attempt", 1), (".safetensors", accepted[0]), (".json", accepted[-1]), (".json", len(expected))]
    arguments = base_folder, tmp_path / "journal", json.dumps(SETTINGS.to_json()), json.dumps(moments)
    script = [sys.executable, "-c", KILLED, *map(str, arguments)]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(-SIGKILL)] * len(moments)
    told, trained = ran(reduced(base, digits, SETTINGS, seed=5, journal=tmp_path / "journal"))
    assert timeless(told) == timeless(expected)
    assert same(trained, whole)


def test_more_attempts_may_follow_than_were_asked_for_at_first(
    base: ExportedModel, digits: Dataset, undisturbed: tuple[list[Iteration], Trained], tmp_path: Path
) -> None:
    for n in (2, 1, 3, None):
        settings = replace(SETTINGS, iterations=n)
        told, trained = ran(reduced(base, digits, settings, seed=5, journal=tmp_path / "journal"))
        assert timeless(told) == timeless(undisturbed[0][: max(n, 2) if n else None])
    assert same(trained, undisturbed[1])


def test_a_journal_of_another_reduction_is_refused_in_one_line(
    base: ExportedModel, digits: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    settings = replace(SETTINGS, iterations=1)
    ran(reduced(base, digits, settings, seed=5, journal=folder))
    other = replace(base, about={**base.about, "pipeline": {**base.about["pipeline"], "batch_size": 64}})
    touched = replace(base, network=_touched(base))
    cases: list[tuple[ExportedModel, Dataset, Reduction, int, str]] = [
        (base, digits, replace(settings, epsilon=0.01), 5, "epsilon was 0.03, now it is 0.01"),
        (base, digits, settings, 6, "its seed was 5, now it is 6"),
        (base, replace(digits, split_hash="0" * 64), settings, 5, "split was"),
        (other, digits, settings, 5, "batch_size was 50, now it is 64"),
        (touched, digits, settings, 5, "its base was"),
    ]
    for network, data, asked, seed, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            next(reduced(network, data, asked, seed, journal=folder))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "journal.json").write_text("{"), "journal.json is damaged"),
        (lambda folder: (folder / "journal.json").write_text("[]"), "journal.json is damaged"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), "safetensors is missing or damaged"),
        (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"0"), "safetensors is missing or damaged"),
    ],
)
def test_a_damaged_journal_is_refused_in_one_line(
    base: ExportedModel, digits: Dataset, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    settings = Reduction(epsilon=1.0, epochs=0, iterations=1)
    ran(reduced(base, digits, settings, seed=5, journal=tmp_path / "journal"))
    damage(tmp_path / "journal")
    with pytest.raises(ValueError, match=words) as caught:
        next(reduced(base, digits, settings, seed=5, journal=tmp_path / "journal"))
    assert "\n" not in str(caught.value)


def test_a_network_that_a_kill_left_before_its_log_is_not_taken_for_the_one_of_the_same_attempt(
    base: ExportedModel, digits: Dataset, tmp_path: Path
) -> None:
    folder, settings = tmp_path / "journal", Reduction(epsilon=1.0, epochs=0, iterations=1)
    folder.mkdir()
    (folder / "network-1.safetensors").write_bytes(b"of an attempt that came out otherwise")
    _, trained = ran(reduced(base, digits, settings, seed=5, journal=folder))
    told, again = ran(reduced(base, digits, settings, seed=5, journal=folder))
    assert [each.accepted for each in told] == [True]
    assert same(trained, again)


def _touched(base: ExportedModel) -> Network:
    """The network, one of its numbers another."""
    network = deepcopy(base.network)
    network.get_parameter("head.bias").data[0] += 1e-3
    return network
