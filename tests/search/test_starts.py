"""Studies that may start from a trained network: which one is part of what they are, whatever befalls the program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from objectives.export import load_model
from objectives.networks.architecture import Architecture, Stage
from objectives.pipeline import Pipeline
from objectives.starts.naming import origin
from objectives.strategies.transfer import Transfer
from search.database import storage
from search.errors import UsageError
from search.invocation import Planning
from search.study import asked, opening, records, spec
from tests.objectives.starts.made import exported, lively
from tests.search.conftest import TOML
from tests.search.place import REPOSITORY, Place, check_whole

SMALL = Architecture(1, 10, (Stage(16, (16,)), Stage(32, (32,))))
DEEP = Architecture(1, 10, (Stage(8, (8,)), Stage(8, (8,)), Stage(8, (8,))))
STUDY = ("--study", "tiny")


@pytest.fixture
def start(place: Place) -> Path:
    """A network to start from, which the study of the place names."""
    about = {"study": "pets", "trial": 3, "train_seconds": 12.0, "family": "small"}
    folder = exported(place.folder / "net", lively(SMALL), **about)
    say(place, 'family = "small"', 'start = "net"')
    return folder


def say(place: Place, before: str, after: str) -> None:
    """Another study file."""
    path = place.folder / "studies" / "tiny.toml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def begun(place: Place) -> list[bool]:
    """Whether each trial began from the trained network."""
    return [records.begins_trained(trial) for trial in place.trials() if records.PIPELINE in trial.user_attrs]


def test_a_study_tries_the_start_and_scratch_and_says_what_the_start_took(place: Place, start: Path) -> None:
    done = place.run(*STUDY, "--n-trials", "4", module="search.run")
    assert done.code == 0, done.err
    told = "trial 3 of study pets"
    assert f"to start from: {told}, at 8 pixels, 10 classes; it took 12 s to train" in done.err
    assert f"start       {told}: " in done.out
    assert {*begun(place)} == {True, False}
    trial = next(trial for trial in place.trials() if records.begins_trained(trial))
    assert any(f"begins from {told}, its classifier too; " in event for event in trial.user_attrs[records.EVENTS])
    again = place.run(*STUDY, "--n-trials", "4", "--json", module="search.run")
    result = json.loads(again.out)
    assert result["start"] == json.loads(json.dumps(origin(str(start)).to_json()))
    assert result["identity"]["start"] == {"digest": origin(str(start)).digest}
    page = place.run("report", *STUDY, module="search")
    assert page.code == 0, page.err
    assert told in (place.folder / "tiny.html").read_text()


@pytest.mark.long  # trains
def test_a_network_that_was_trained_from_a_start_is_trained_anew_from_it_or_from_another(
    place: Place, start: Path
) -> None:
    say(place, "[search]", "[space.fix]\nstart = true\n[search]")
    assert place.run(*STUDY, "--n-trials", "3", "--timeout", "600", module="search.run").code == 0
    study = optuna.load_study(study_name="tiny", storage=place.url)
    kept = place.folder / "studies" / "artifacts" / "tiny"
    networks = [kept / f"trial-{t.number:05d}" for t in study.get_trials() if records.begins_trained(t)]
    network = next(folder for folder in networks if folder.is_dir())
    about, digest = load_model(network).about, origin(str(start)).digest
    assert about["start"] == {
        "source": str(start),
        "digest": digest,
        "words": "trial 3 of study pets",
        "train_seconds": 12,
    }
    assert (load_model(network).mean, load_model(network).std) == ((0.3,), (0.35,))
    train = ("train", "--pipeline", str(network), "--data", "digits", "--n-train", "200", "--device", "cpu")
    done = place.run(*train, "-o", "anew", module="search")
    assert done.code == 0, done.err
    assert load_model(place.folder / "anew").about["start"] == about["start"]
    moved = start.rename(place.folder / "elsewhere")
    refused = place.run(*train, "-o", "third", module="search")
    assert refused.code == 2
    assert "--start names where the network lies now" in refused.err
    done = place.run(*train, "-o", "third", "--start", str(moved), module="search")
    assert done.code == 0, done.err
    assert load_model(place.folder / "third").about["start"]["digest"] == digest  # type: ignore[index]


def test_killed_at_any_moment_the_same_command_goes_on_from_the_same_start(place: Place, start: Path) -> None:
    place.script({2: "kill_program"})
    assert place.run(*STUDY, "--n-trials", "12").code == -signal.SIGKILL
    place.script()
    done = place.run(*STUDY, "--n-trials", "12")
    assert done.code == 0, done.err
    assert "was lost with the process that ran it" in done.err
    check_whole(place.trials(), 12)
    assert {*begun(place)} == {True, False}


def test_another_network_at_the_same_place_is_another_study(place: Place, start: Path) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    exported(start, lively(SMALL, seed=1), family="small")
    done = place.run(*STUDY, "--n-trials", "3")
    assert done.code == 2
    assert "does not match what was asked: the network to start from has other weights" in done.err
    assert "Traceback" not in done.err
    assert records.n_counted(place.trials()) == 2


def test_the_same_network_at_another_place_is_the_same_study(place: Place, start: Path) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    start.rename(place.folder / "elsewhere")
    gone = place.run(*STUDY, "--n-trials", "3")
    assert (gone.code, "there is no such folder" in gone.err) == (2, True)
    for command in ("report", "best"):  # what was found can be read without it
        assert place.run(command, *STUDY, module="search").code == 0
    say(place, '"net"', '"elsewhere"')
    done = place.run(*STUDY, "--n-trials", "7")
    assert done.code == 0, done.err
    pipelines = [records.pipeline(t) for t in place.trials()[2:] if records.begins_trained(t)]
    sources = {s.source for pipeline in pipelines for s in pipeline.strategies if isinstance(s, Transfer)}
    assert sources == {str(place.folder / "elsewhere")}


def test_a_command_line_says_where_a_start_lies_whose_place_in_the_study_file_is_empty(
    place: Place, start: Path
) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    start.rename(place.folder / "elsewhere")
    done = place.run(*STUDY, "--as", "tiny", "--start", "elsewhere", "--n-trials", "3")
    assert done.code == 0, done.err
    assert records.n_counted(place.trials()) == 3
    study = optuna.load_study(study_name="tiny", storage=place.url)  # as commands see it that read no study file
    assert study.user_attrs["spec"]["network"]["start"] == str(place.folder / "elsewhere")
    seen = opening.seen("tiny", storage.open_storage(place.url))
    begun = [seen.pipeline(trial) for trial in seen.trials if records.begins_trained(trial)]
    assert {s.source for p in begun for s in p.strategies if isinstance(s, Transfer)} == {
        str(place.folder / "elsewhere")
    }
    gone = place.run(*STUDY, "--start", "none")
    assert (gone.code, "tiny.toml with --start none: network.start: " in gone.err) == (2, True)


def test_the_start_of_a_command_line_says_the_family_where_the_study_file_says_none(
    study_file: Path, tmp_path: Path
) -> None:
    one, other = exported(tmp_path / "one", lively(SMALL)), exported(tmp_path / "other", lively(DEEP))
    study_file.write_text(TOML.replace('family = "small"', f"start = '{one}'"))
    _, read = spec.read(str(study_file), str(other))
    assert (read.network.family, read.task.start) == ("thin", str(other))


def test_a_training_refuses_a_family_that_cannot_begin_as_its_pipeline_says(place: Place, start: Path) -> None:
    recipe = {"epochs": 1, "strategies": [{"strategy": "Transfer", "source": str(start), "digest": ""}]}
    (place.folder / "recipe.json").write_text(json.dumps(Pipeline().to_json() | recipe))
    words = ("train", "--pipeline", "recipe.json", "--data", "digits", "--device", "cpu", "-o", "anew")
    done = place.run(*words, "--family", "thin", module="search")
    assert done.code == 2, done.err
    assert "--family thin: " in done.err
    assert "leave family out, or name another start" in done.err


def test_a_study_without_a_start_is_what_it_was_and_refuses_to_get_one(place: Place) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    identity = optuna.load_study(study_name="tiny", storage=place.url).user_attrs[records.IDENTITY]
    assert "start" not in identity
    assert not [name for name in identity["space"] if name.partition(".")[0] in ("start", "frozen", "probe", "rates")]
    exported(place.folder / "net", lively(SMALL), family="small")
    say(place, 'family = "small"', 'family = "small"\nstart = "net"')
    done = place.run(*STUDY, "--n-trials", "3")
    assert (done.code, "it does not start from a trained network" in done.err) == (2, True)
    derived = place.run(*STUDY, "--n-trials", "2", "--start", "net")
    assert derived.code == 0, derived.err
    assert "study 'tiny-start-" in derived.err


WRONG = {
    "no folder": ('start = "none"', "network.start: .*none is not an exported model: there is no such folder"),
    "stages": ('family = "small"\nstart = "deep"', "no network can begin .* it has 2 stages, the start 3"),
    "a plain family": ('family = "lenet300"\nstart = "deep"', "one is residual, one is plain"),
    "no family": ('start = "odd"', "no family has networks as the network in odd"),
    "a number": ("start = 3", "network.start = 3: it must be text in quotes"),
    "empty": ('start = ""', "network.start"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_no_study_can_start_from_is_told_in_one_line(
    words: str, said: str, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "deep", lively(DEEP))
    exported(tmp_path / "odd", lively(Architecture(1, 10, tuple(Stage(4, (3,)) for _ in range(6)))))
    study_file.write_text(TOML.replace('family = "small"', words))
    with pytest.raises(UsageError, match=said) as refused:
        spec.read(str(study_file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["structure", "reduction"])
def test_spaces_that_begin_at_random_have_no_start(kind: str, study_file: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path / "net", lively(SMALL), family="small")
    words = TOML.replace('family = "small"', f"start = '{folder}'").replace("[space]", f'[space]\nname = "{kind}"')
    if kind == "reduction":
        words = 'kind = "reduce"\n[reduce.base]\nepochs = 2\n' + TOML.replace("[space]", "[space_]")
        words = words.replace('family = "small"', f"family = 'small'\nstart = '{folder}'")
        words = words[: words.index("[space_]")] + words[words.index("[search]") :]
    study_file.write_text(words)
    with pytest.raises(UsageError, match=r"network\.start: "):
        spec.read(str(study_file))


def test_a_study_says_the_family_of_its_start_where_it_says_none(study_file: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path / "net", lively(DEEP))
    study_file.write_text(TOML.replace('family = "small"', f"start = '{folder}'"))
    _, read = spec.read(str(study_file))
    assert (read.network.family, read.task.start) == ("thin", str(folder))
    assert spec.StudySpec.model_validate(read.model_dump(mode="json")) == read


def test_names_follow_the_weights_and_not_where_they_lie(study_file: Path, tmp_path: Path) -> None:
    name, plain = spec.read(str(study_file))
    one, other = (exported(tmp_path / each, lively(SMALL, seed=n)) for n, each in enumerate(("one", "other")))
    moved = Path(shutil.copytree(one, tmp_path / "moved"))
    names = [asked.override(name, plain, None, None, None, None, None, str(each))[0] for each in (one, other, moved)]
    assert names[0] == names[2] != names[1]
    assert names[0].startswith("tiny-start-")
    data = plain.task.data
    assert asked.named_after(data, str(one)) == asked.named_after(data, str(moved)) != asked.named_after(data)


def test_a_plan_has_room_for_the_network_to_start_from(place: Place, start: Path) -> None:
    done = place.run("plan", "digits", "--minutes", "1", "--start", "net", "--as", "mine", "--device", "cpu")
    assert done.code == 0, done.err
    _, read = spec.read(str(place.folder / "studies" / "mine.toml"))
    assert (read.network.family, read.task.start) == ("small", str(start))
    assert "start   trial 3 of study pets, or from scratch: it took 12 s to train" in done.out
    low, high = read.space.width
    assert low <= 1.0 <= high
    refused = place.run("plan", "digits", "--minutes", "1", "--start", "none", "--device", "cpu")
    assert (refused.code, "--start none: " in refused.err) == (2, True)


@pytest.mark.long  # half a minute
def test_in_minutes_known_ways_to_begin_from_the_start_are_tried_first(place: Place, start: Path) -> None:
    asked_for = ("--data", "digits", "--n-train", "200", "--minutes", "0.5", "--start", "net", "--device", "cpu")
    done = place.run(*asked_for, "--json", module="search.run")
    assert done.code == 0, done.err
    name = json.loads(done.out)["study"]
    trials = [trial for trial in place.trials(name) if trial.state.is_finished()]
    assert any(records.begins_trained(trial) for trial in trials)


def test_a_plan_refuses_a_plain_start_in_one_line(tmp_path: Path) -> None:
    from objectives.networks.families import build

    plain = build("lenet300", depth=1, width=0.1, in_channels=1, n_classes=10, size=8)
    folder = exported(tmp_path / "net", lively(plain))
    shared = dict.fromkeys(
        ("study", "data_root", "labels", "workers", "cluster", "storage", "as_name", "n_train", "seed")
    )
    flags = dict.fromkeys(("in_process", "json", "verbose", "quiet"), False)
    planning = Planning(**shared, **flags, data="digits", device="cpu", words=(), minutes=1.0, start=str(folder))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a plain network: plans are of residual ones"):
        planning.begun  # noqa: B018


def test_the_process_that_owns_a_study_reads_an_exported_start_without_torch(place: Place, start: Path) -> None:
    """Weights are a worker's matter."""
    code = "import sys; from search.study.spec import read; read('studies/tiny.toml'); print('torch' in sys.modules)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=place.folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True
    )
    assert (done.stdout.strip(), done.stderr) == (b"False", b"")


def test_reading_a_study_needs_no_start(place: Place, start: Path) -> None:
    assert place.run(*STUDY, "--n-trials", "2").code == 0
    shutil.rmtree(start)
    database = storage.open_storage(place.url)
    now = opening.seen("tiny", database)
    assert now.given.start is not None
    assert now.given.start.words == "trial 3 of study pets"
