"""Studies of kind `reduce`: a network is made smaller again and again, whatever befalls the program."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import optuna
import pytest

from objectives.export import load_model
from objectives.host.durable import damaged, sums
from search.errors import UsageError
from search.study import records
from search.study.spec import read
from tests.search.place import PATIENCE, Done, Place, check_whole, wait_for

TOML = """
kind = "reduce"

[data]
name = "digits"
n_train = 200

[network]
family = "small"

[reduce]
epsilon = [0.01, 0.1]
epochs = [1, 1]
iterations = [2, 3]

[reduce.base]
epochs = 4

[search]
n_trials = 6
confirm = 1
"""
STUDY = ("--study", "smaller")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A working directory with a study, `smaller`, and a script in which nothing happens."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "smaller.toml").write_text(TOML)
    made = Place(tmp_path)
    made.script()
    return made


def base(place: Place) -> Path:
    """The folder of the network that is made smaller."""
    return place.folder / "studies" / "artifacts" / "smaller" / "base"


def change(place: Place, before: str, after: str) -> None:
    """Another study file."""
    assert before in TOML
    (place.folder / "studies" / "smaller.toml").write_text(TOML.replace(before, after))


def test_a_study_makes_a_network_smaller_and_says_flops_wherever_another_one_says_seconds(place: Place) -> None:
    done = place.run(*STUDY, "--n-trials", "3", module="search.run")
    assert done.code == 0, done.err
    study = optuna.load_study(study_name="smaller", storage=place.url)
    assert study.metric_names == ["inference_flops", "val_accuracy"]
    known = study.user_attrs[records.BASE]
    assert f"to be made smaller: {known['accuracy']:.2%} on validation" in done.err
    for said in (" MFLOP ", "fewer FLOPs", "of the box from", " MFLOP and "):
        assert said in done.out
    assert "seconds of training" not in done.out
    trials = [trial for trial in study.get_trials() if records.is_finished_run(trial)]
    assert len(trials) >= 3
    for trial in trials:  # never below what it may lose, and never larger than it was
        reduction = records.pipeline(trial).reduction
        assert reduction is not None
        assert trial.values[1] >= known["accuracy"] - reduction.epsilon - 1e-5
        assert trial.values[0] == trial.user_attrs["inference_flops"] <= known["inference_flops"]
    assert records.curve(trials[0])[0].accuracy == pytest.approx(known["accuracy"], abs=1e-5)
    assert damaged(base(place)) == []
    assert load_model(base(place)).about["accuracy"] == known["accuracy"]

    best = place.run("best", *STUDY, module="search")
    assert (" with 0." in best.out, " MFLOP (" in best.out, "smaller   " in best.out) == (True, True, True)
    told = json.loads(place.run("best", *STUDY, "--json", module="search").out)["best"]
    assert told["inference_flops"] in [trial.values[0] for trial in trials]
    check_refused(place.run("best", *STUDY, "--under-seconds", "3", module="search"), "ask with --under-mflop M")
    check_refused(place.run("record", *STUDY, module="search"), "what is recorded is seconds of a clock")

    again = place.run(*STUDY, "--n-trials", "3", "--json", module="search.run")
    assert "is complete with 3 trials: nothing to train" in again.err
    result = json.loads(again.out)
    assert result["base"]["weights"] == sums(base(place))["weights.safetensors"]
    assert set(result["reference"]) == {"inference_flops", "accuracy"}
    assert 0 < result["hypervolume"] < 1
    for point in result["front"]:
        assert "train_seconds" not in point
        model = load_model(base(place).parent / f"trial-{point['trial']:05d}")
        assert (model.about["val_accuracy"], model.about["pipeline"]) == (point["val_accuracy"], point["pipeline"])
        assert sum(p.numel() for p in model.network.parameters()) == point["n_parameters"]


@pytest.mark.long
def test_networks_that_were_made_smaller_are_confirmed_and_meet_the_test_split(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "2", module="search.run").code == 0
    confirmed = place.run("confirm", *STUDY, "--seeds", "1", "--json", module="search")
    assert confirmed.code == 0, confirmed.err
    assert "the test split is opened" in confirmed.err
    for point in json.loads(confirmed.out)["front"]:
        assert point["confirmed"]["n"] == 1
        assert point["confirmed"]["inference_flops"] > 0
        assert 0.5 < point["test_accuracy"]["mean"] <= 1


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("out_of_memory", ["out_of_memory", *["complete"] * 5]),
        ("SIGSEGV", ["crash", *["complete"] * 6]),
        pytest.param("hang", ["hang", *["complete"] * 5], marks=pytest.mark.long),
        pytest.param("inf", ["diverged", *["complete"] * 5], marks=pytest.mark.long),
        pytest.param("device_lost", ["complete"] * 6, marks=pytest.mark.long),
    ],
)
def test_a_fault_ends_its_reduction_and_the_study_goes_on(fault: str, reasons: list[str], place: Place) -> None:
    place.script({1: fault})  # 0 is the training of the network that is made smaller
    done = place.run(*STUDY)
    assert done.code == 0, done.err
    trials = place.trials("smaller")
    assert [records.reason(trial) for trial in trials if records.is_searched(trial)] == reasons
    check_whole(trials, 6)


def test_killed_at_any_moment_the_same_command_goes_on_with_the_same_network(place: Place) -> None:
    place.script({0: "kill_program"})
    assert place.run(*STUDY).code == -signal.SIGKILL
    assert not base(place).exists()
    place.script({2: "kill_program"})
    assert place.run(*STUDY).code == -signal.SIGKILL
    assert place.reasons("smaller")[:2] == ["complete", "running"]
    weights = sums(base(place))
    place.script()
    done = place.run(*STUDY)
    assert done.code == 0, done.err
    assert "is trained first" not in done.err
    assert "trial 1 was lost with the process that ran it" in done.err
    assert sums(base(place)) == weights
    check_whole(place.trials("smaller"), 6)


def test_interrupted_between_its_network_and_itself_a_study_takes_the_one_that_is_there(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    weights = sums(base(place))
    place.database.unlink()  # as if it had never been made
    place.script(letter="x")
    done = place.run(*STUDY, "--n-trials", "1")
    assert ("is trained first" in done.err, sums(base(place)) == weights) == (False, True)
    place.database.unlink()
    change(place, "epochs = 4", "epochs = 5")
    done = place.run(*STUDY, "--n-trials", "1")
    assert ("is trained first" in done.err, sums(base(place)) == weights) == (True, False)


def test_a_network_that_was_lost_is_trained_again_and_another_one_is_refused(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    (base(place) / "weights.safetensors").write_bytes(b"damage")
    done = place.run(*STUDY, "--n-trials", "2")
    assert (done.code, "is trained first" in done.err) == (0, True)
    shutil.rmtree(base(place))
    place.script(letter="x")
    done = place.run(*STUDY, "--n-trials", "3")
    assert done.code == 2
    assert "does not match what was asked: base.weights was " in done.err
    assert records.n_counted(place.trials("smaller")) == 2


@pytest.mark.long  # eleven seconds
def test_an_exported_network_is_made_smaller_wherever_its_folder_goes(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    exported = base(place).rename(place.folder / "network")
    at = TOML.index("[reduce.base]")
    words = TOML[:at] + TOML[TOML.index("[search]") :]
    words = words.replace("[reduce]", '[reduce]\nmodel = "network"').replace('[network]\nfamily = "small"', "")
    (place.folder / "studies" / "of_model.toml").write_text(words)
    assert place.run("--study", "of_model", "--n-trials", "1").code == 0
    exported.rename(place.folder / "elsewhere")
    done = place.run("--study", "of_model", "--n-trials", "2")
    assert done.code == 0, done.err
    place.script(letter="x")
    assert place.run(*STUDY, "--as", "another", "--n-trials", "1").code == 0
    shutil.copytree(base(place).parents[1] / "another" / "base", exported)
    refused = place.run("--study", "of_model", "--n-trials", "3")
    check_refused(refused, "does not match what was asked: base.weights was ")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("moment", "states"), [("is trained first", []), ("attempt 1", ["waiting"] * 5)])
def test_an_interruption_puts_the_reduction_back(
    number: signal.Signals, moment: str, states: list[str], place: Place
) -> None:
    place.script(pause=0.3)
    with place.started(*STUDY, "-v") as process:
        wait_for(process, moment)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.rstrip().endswith("to go on: python -m search.run --study smaller -v")
    if states:
        assert place.reasons("smaller") == states
    place.script()
    assert place.run(*STUDY).code == 0
    check_whole(place.trials("smaller"), 6)


@pytest.mark.long
def test_killed_in_mid_reduction_the_study_still_ends_whole(place: Place) -> None:
    for _ in range(2):
        with place.started(*STUDY, "-v", module="search.run") as process:
            wait_for(process, "attempt 1 ")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert place.run(*STUDY, module="search.run").code == 0
    trials = place.trials("smaller")
    check_whole(trials, 6)
    assert place.reasons("smaller").count(records.LOST) == 2


@pytest.mark.long  # eight seconds
def test_a_study_that_was_changed_is_refused_in_one_line(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "1").code == 0
    for before, after, said in (
        ("epochs = 4", "epochs = 5", "base.settings.epochs was 4, is 5"),
        ("epsilon = [0.01, 0.1]", "epsilon = [0.01, 0.2]", "epsilon was 0.01 to 0.1 (log), is 0.01 to 0.2 (log)"),
    ):
        change(place, before, after)
        check_refused(place.run(*STUDY), f"does not match what was asked: {said}: start a new study")
    other = (Path(__file__).parents[2] / "studies" / "digits_pareto.toml").read_text()
    (place.folder / "studies" / "smaller.toml").write_text(other)
    check_refused(place.run(*STUDY), "does not match what was asked: kind was 'reduce', is 'pareto': start a new study")


def test_what_a_reduction_cannot_do_is_refused_in_one_line(place: Place) -> None:
    for words, said in (
        ("--minutes 5", "--minutes plans trainings by their seconds"),
        ("--stopping front", "--stopping: stopping 'front' judges by seconds"),
        ("--cluster ray", "--cluster: the network that a study of kind reduce makes smaller lies on this machine"),
    ):
        check_refused(place.run(*STUDY, *words.split()), said)


def check_refused(done: Done, said: str) -> None:
    """One line with the words, before anything is trained."""
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('kind = "reduce"', "", '[reduce] belongs to studies of kind "reduce": begin the file with kind = "reduce"'),
        ('kind = "reduce"', 'kind = "redoce"', "kind = \"redoce\": it must be 'pareto', 'reduce' or 'modelled'"),
        ("[reduce.base]\nepochs = 4", "", 'it needs one network: either model = "FOLDER"'),
        ("[reduce]", '[reduce]\nmodel = "x"', 'it needs one network: either model = "FOLDER"'),
        (TOML[TOML.index("[reduce]") : TOML.index("[search]")], "", 'kind "reduce" needs a network: model = "FOLDER"'),
        ("epsilon = [0.01, 0.1]", "epsilon = [0.1, 0.01]", "epsilon = [0.1, 0.01]: the least comes first"),
        ("epsilon = [0.01, 0.1]", "epsilon = [0, 0.01]", "reduce.epsilon = 0: it must be at least 1e-06"),
        ("epsilon = [0.01, 0.1]", "epsilon = 0.1", "reduce.epsilon: it must be a range, epsilon = [least, most]"),
        (
            "epochs = [1, 1]",
            "epochs = [1.5, 2]",
            "reduce.epochs: it must be a range, epochs = [least, most], two whole",
        ),
        ("iterations =", "iteration =", "reduce.iteration: unknown key; did you mean 'iterations'?"),
        ("epochs = 4", "epoch = 4", "reduce.base.epoch: unknown key; did you mean 'epochs'?"),
        ("epochs = 4", "strategies = []", "reduce.base.strategies: unknown key"),
        (
            "[search]",
            "[space]\nepochs = [1, 2]\n[search]",
            "[space] epochs: a study of kind reduce has its ranges",
        ),
        ("[search]", "[space]\nname = 'structure'\n[search]", "space 'structure' chooses how networks are trained"),
        ("[search]", "[space.fix]\nprune = true\n[search]", "[space.fix] prune: "),
        (
            "[search]",
            "[space.fix]\ncriterion = 'tailor'\n[search]",
            '[space.fix] criterion = "tailor": it must be one of',
        ),
        ("n_trials = 6", "n_trials = 6\nstopping = 'front'", "stopping 'front' judges by seconds"),
        ("n_trials = 6", "n_trials = 6\nslowest = 9.0", "fastest and slowest are seconds"),
        ("[data]", 'metric = "balanced"\n[data]', 'metric "balanced": a smaller network is accepted by its plain'),
    ],
)
def test_what_a_study_file_may_not_say_of_a_reduction_is_told_in_one_line(
    before: str, after: str, said: str, tmp_path: Path
) -> None:
    assert before in TOML
    (tmp_path / "smaller.toml").write_text(TOML.replace(before, after))
    with pytest.raises(UsageError) as refused:
        read(str(tmp_path / "smaller.toml"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_network_is_refused_before_anything_is_opened(place: Place) -> None:
    (place.folder / "empty").mkdir()
    for folder, why in (("nowhere", "there is no such folder"), ("empty", "SHA256SUMS is missing or damaged")):
        change(place, "[reduce.base]\nepochs = 4", "")
        path = place.folder / "studies" / "smaller.toml"
        path.write_text(path.read_text().replace("[reduce]", f"[reduce]\nmodel = '{folder}'"))
        check_refused(place.run(*STUDY), f"reduce.model = '{folder}' is no exported network: {why}")
