"""The command line, run as a user runs it: real trainings of a few digits in real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from objectives.export import load_model
from search.study import records
from search.views.display import STARTING
from tests.search.place import PATIENCE

REPOSITORY = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "search.run"]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The finished command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=_environment(cwd, environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The running command, in a process group of its own."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=_environment(cwd, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process


def _environment(cwd: Path, more: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return (
        {k: v for k, v in os.environ.items() if k != "OPTUNA_STORAGE"}
        | {"PYTHONPATH": path, "FRONTRUNNER_RUN_DIR": str(cwd / "run")}
        | more
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Reads what the process says until a line has the text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}")


def stored(cwd: Path, name: str = "tiny") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{cwd}/studies/optuna.db").get_trials()


@pytest.fixture
def place(tmp_path: Path, study_file: Path) -> Path:
    """A working directory with one study in it."""
    (tmp_path / "studies").mkdir()
    study_file.rename(tmp_path / "studies" / "tiny.toml")
    return tmp_path


def test_help_answers_without_torch_and_names_every_flag(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for flag in (
        *(
            "--study",
            "--study-name",
            "--as",
            "--data",
            "--data-root",
            "--n-train",
            "--device",
            "--devices",
            "--n-trials",
        ),
        *("--add", "--timeout", "--storage", "--sampler", "--stopping", "--seed", "--json", "--verbose", "--quiet"),
    ):
        assert flag in done.stdout


def test_without_a_terminal_each_thing_is_said_once_it_is_known(place: Path) -> None:
    with started("--study", "tiny", "--device", "cpu", cwd=place) as process:
        for text in (STARTING, "1500 images in 10 classes", "number format tf32 is left out", "trial 0 (BASELINE)"):
            wait_for(process, text)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)


def test_a_study_runs_to_its_front_and_the_same_command_trains_nothing_more(place: Path) -> None:
    done = run("--study", "tiny", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
    assert "BASELINE" in done.stdout
    assert "python -m search dashboard --study tiny" in done.stdout
    trials = stored(place)
    assert [t.state.is_finished() for t in trials] == [True] * 7
    for ended in trials:  # by the clock on the wall it takes at least what it is charged: one thread
        assert records.curve(ended)[-1].train_seconds <= 1.05 * ended.user_attrs[records.WALL_SECONDS]

    again = run("--study", "tiny", "--json", cwd=place)
    assert again.returncode == 0
    assert "complete with 7 trials: nothing to train" in again.stderr
    assert [t.number for t in stored(place)] == list(range(7))
    result = json.loads(again.stdout)
    assert set(result) >= {
        *("study", "trials", "front", "baseline", "hypervolume", "reference", "identity", "storage"),
    }
    assert set(result["trials"]) == {
        "complete",
        "pruned",
        "failed",
        "waiting",
        "running",
        "by_reason",
        "repeats",
        "confirmations",
        "ablations",
    }
    told = {"trial", "train_seconds", "val_accuracy", "balanced_accuracy", "params", "pipeline", "noisy"}
    told |= {"confirmed", "test_accuracy", "against_plain", "timeline", "is_alike", "network"}
    assert set(result["front"][0]) == told
    for point in result["front"]:
        assert point["network"] == str(place / "studies" / "artifacts" / "tiny" / f"trial-{point['trial']:05d}")
        model = load_model(point["network"])
        assert model.about["val_accuracy"] == point["val_accuracy"]
        assert model.about["pipeline"] == point["pipeline"]

    more = run("--study", "tiny", "--add", "1", "-q", cwd=place)
    assert (more.returncode, more.stderr) == (0, "")
    assert records.n_counted(stored(place)) == 8
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{place}/studies/optuna.db")
    attributes = study._storage.get_study_system_attrs(study._study_id)
    notes = {key for key in attributes if key.endswith(":note_ver")}
    assert len(notes) == 8
    figures = {key.split(":")[2] for key in attributes if key.startswith("dashboard:plot_data")}
    assert figures == {"front", "learning-curves", "hypervolume", "network-sizes"}  # Net2Net grows


@pytest.mark.long
def test_killed_in_mid_trial_twice_the_study_still_ends_whole(place: Path) -> None:
    for _ in range(2):
        with started("--study", "tiny", "-v", cwd=place) as process:
            wait_for(process, "epoch 1 of")
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.2)
        assert any(t.state == TrialState.RUNNING for t in stored(place))
    done = run("--study", "tiny", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["trials"]
    assert (counts["running"], counts["waiting"]) == (0, 0)
    assert counts["complete"] + counts["pruned"] == 7
    assert counts["by_reason"]["worker_lost"] == counts["failed"] == 2


@pytest.mark.long
def test_ctrl_c_puts_the_trial_back_and_says_how_to_go_on(place: Path) -> None:
    with started("--study", "tiny", "-v", cwd=place) as process:
        wait_for(process, "epoch 1 of")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.rstrip().endswith("interrupted; to go on: python -m search.run --study tiny -v")
    assert "the best network so far" not in err  # there is none
    assert not any(t.state in (TrialState.RUNNING, TrialState.FAIL) for t in stored(place))
    assert run("--study", "tiny", cwd=place).returncode == 0
    assert records.n_counted(stored(place)) == len(stored(place)) == 7


@pytest.mark.long
def test_sigterm_is_an_interruption_too(place: Path) -> None:
    with started("--study", "tiny", "--add", "7", "-v", cwd=place) as process:
        wait_for(process, "epoch 1 of")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "--study tiny --n-trials 7 -v" in err


@pytest.mark.long
def test_a_second_run_of_the_same_study_says_who_runs_it(place: Path) -> None:
    with started("--study", "tiny", "--n-trials", "1000", cwd=place) as process:
        wait_for(process, "trial 0")
        second = run("--study", "tiny", cwd=place)
        process.terminate()
    assert second.returncode == 4
    assert str(process.pid) in second.stderr


@pytest.mark.long
def test_time_that_is_up_ends_the_run_and_keeps_the_study(place: Path) -> None:
    done = run("--study", "tiny", "--timeout", "0.5", cwd=place)
    assert done.returncode == 0
    assert "time is up; to go on: python -m search.run --study tiny" in done.stderr
    assert records.n_counted(stored(place)) < 7
    assert not any(t.state == TrialState.RUNNING for t in stored(place))


@pytest.mark.long
def test_an_override_runs_a_study_of_its_own(place: Path) -> None:
    for _ in range(2):
        assert run("--study", "tiny", "--n-train", "100", "--n-trials", "1", cwd=place).returncode == 0
    assert run("--study", "tiny", "--n-train", "100", "--as", "mine", "--n-trials", "1", cwd=place).returncode == 0
    names = optuna.get_all_study_names(f"sqlite:///{place}/studies/optuna.db")
    assert len(names) == 2
    assert "mine" in names
    assert "tiny" not in names


@pytest.mark.long
def test_a_study_of_another_seed_under_the_same_name_is_refused(place: Path) -> None:
    assert run("--study", "tiny", "--as", "mine", "--n-trials", "1", cwd=place).returncode == 0
    refused = run("--study", "tiny", "--as", "mine", "--seed", "1", "--n-trials", "2", cwd=place)
    assert refused.returncode == 2
    assert "seed was 0, is 1" in refused.stderr


@pytest.mark.long
def test_a_folder_of_images_with_unusual_names_is_one_study_until_its_images_change(place: Path) -> None:
    from PIL import Image

    for number, name in enumerate(("Cat & Kitten", "frösche", "=cmd()")):
        (place / "images" / name).mkdir(parents=True)
        for shade in range(20):
            Image.new("RGB", (11 + shade, 17), (80 * number, shade * 5, 90)).save(
                place / "images" / name / f"{shade}, a.png"
            )
    shutil.copy(place / "images" / "frösche" / "0, a.png", place / "images" / "=cmd()" / "0, b.png")
    done = run("--study", "tiny", "--data", "folder:images", "--n-trials", "1", "--json", "--n-train", "40", cwd=place)
    assert done.returncode == 0, done.stderr
    name = json.loads(done.stdout)["study"]
    assert f"study {name!r}, named after what the command line changes" in done.stderr
    found = (
        "61 images in 3 classes: =cmd() is the largest with 21 (34.4%), Cat & Kitten the smallest with 20",
        "shorter sides of 11 to 17 (median 17) pixels, used as 32x32 in colour",
        "40 to train, 21 to validate (split off, 3 times: each image validates once)",
    )
    assert "\n".join(found) in done.stderr
    copies = "images that are copies of one of another class: 1 (=cmd()/0, b.png = frösche/0, a.png)"
    assert f"warning: {copies}" in done.stderr
    about = load_model(next((place / "studies" / "artifacts" / name).iterdir())).about
    assert set(about["classes"]) == {"Cat & Kitten", "frösche", "=cmd()"}  # type: ignore[call-overload]

    (place / "elsewhere").mkdir()
    moved = (place / "images").rename(place / "elsewhere" / "images")
    Image.new("RGB", (9, 9)).save(moved / "frösche" / "new.png")
    done = run("--study", "tiny", "--data", f"folder:{moved}/", "--n-trials", "1", "--n-train", "40", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")  # also of a study that is complete
    assert f"study {name!r} does not match what was asked: 1 image added: frösche/new.png: " in done.stderr
    (moved / "frösche" / "new.png").unlink()
    done = run("--study", "tiny", "--data", f"folder:{moved}/", "--n-trials", "1", "--n-train", "40", cwd=place)
    assert done.returncode == 0
    assert "is complete with 1 trial: nothing to train" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("", 2, "no study is named: --study NAME, or --data folder:DIR --minutes M"),
        ("--data digits", 2, "no study is named"),
        ("--minutes 5", 2, "no study is named"),
        ("--study nope", 2, "no study 'nope'"),
        ("--study ../../etc/passwd", 2, "no study file"),
        ("--study tiny --as ../../x", 2, "study name"),
        ("--study tiny --data cifar01", 2, "did you mean 'cifar10'"),
        ("--study tiny --data ./images", 2, "did you mean 'folder:./images'"),
        ("--study tiny --labels x.csv", 2, "say folder:PATH, not digits"),
        ("--study tiny --n-trials 0", 2, "not a whole number from 1"),
        ("--study tiny --timeout nan", 2, "not a positive number"),
        ("--study tiny --sampler evil", 2, "invalid choice"),
        ("--study tiny --device cuda:77", 5, "cuda:77"),
        ("--study tiny --device teapot", 2, "'teapot': no such device"),
        ("--study tiny --data folder:/no/such", 3, "/no/such"),
        ("--study tiny --n-train 100000", 3, "n_train is 100000"),
        ("--study tiny --storage nonsense", 4, "not an SQLAlchemy URL"),
        ("--study tiny --storage sqlite:///:memory:", 4, "outlives the process"),
        ("--study tiny --storage sqlite:////proc/x.db", 4, "--storage"),
        ("--study tiny --storage nodb://u:secret@host/x", 4, "--storage"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_code(arguments: str, code: int, said: str, place: Path) -> None:
    done = run(*arguments.split(), cwd=place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_a_file_that_is_no_database_is_refused(place: Path) -> None:
    (place / "studies" / "optuna.db").write_text("not a database")
    done = run("--study", "tiny", cwd=place)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert (place / "studies" / "optuna.db").read_text() == "not a database"


@pytest.mark.long
def test_the_storage_of_the_environment_is_used(place: Path) -> None:
    words, storage = ("--study", "tiny", "--n-trials", "1"), f"sqlite:///{place}/new/other.db"
    mistyped = run(*words, cwd=place, OPTUNA_STORAGE=storage)
    assert (mistyped.returncode, f"there is no folder {place}/new" in mistyped.stderr) == (4, True)
    (place / "new").mkdir()
    assert run(*words, cwd=place, OPTUNA_STORAGE=storage).returncode == 0
    assert (place / "new" / "other.db").exists()
    assert not (place / "studies" / "optuna.db").exists()
