"""The commands that look after studies: list, show, rename, delete, disk, clean, the doctor, the dashboard."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search.conftest import TOML
from tests.search.place import PATIENCE, Place, is_gone, wait_for

STUDY = ("--study", "tiny")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place whose study is complete, for all tests here to copy."""
    made = Place(tmp_path_factory.mktemp("finished"))
    (made.folder / "studies").mkdir()
    (made.folder / "studies" / "tiny.toml").write_text(TOML)
    made.script()
    assert made.run(*STUDY).code == 0
    return made


@pytest.fixture
def whole(finished: Place, tmp_path: Path) -> Place:
    """A place whose study is complete."""
    return Place(shutil.copytree(finished.folder, tmp_path / "place"))


@pytest.mark.long
def test_studies_are_listed_shown_renamed_and_deleted(whole: Place) -> None:
    assert "tiny" in whole.run("studies", "list", module="search").out
    assert "Pareto front" in whole.run("studies", "show", "tiny", module="search").out
    assert whole.run("studies", "rename", "tiny", "other", module="search").code == 0
    assert [path.name for path in (whole.folder / "studies" / "artifacts").iterdir()] == ["other"]
    assert "nothing to train" in whole.run(*STUDY, "--as", "other").err
    refused = whole.run("studies", "delete", "other", module="search")
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    assert whole.run("studies", "delete", "other", "--yes", module="search").code == 0
    assert "other" not in whole.run("studies", "list", module="search").out
    assert not list((whole.folder / "studies" / "artifacts").iterdir())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("show tinny", 2, "did you mean 'tiny'"),
        ("rename tiny ../x", 2, "study name"),
        ("rename tiny tiny", 2, "already"),
        ("delete nothing --yes", 2, "there is no study"),
        ("--storage sqlite:///nowhere.db list", 4, "there is no database"),
    ],
)
def test_what_cannot_be_done_to_a_study_is_one_line(words: str, code: int, said: str, whole: Place) -> None:
    done = whole.run("studies", *words.split(), module="search")
    assert (done.code, said in done.err) == (code, True), done.err


def test_a_study_that_runs_is_neither_renamed_nor_deleted(place: Place) -> None:
    place.script(pause=0.3)
    with place.started(*STUDY) as process:
        wait_for(process, "trial 0")
        for words in (("rename", "tiny", "other"), ("delete", "tiny", "--yes")):
            done = place.run("studies", *words, module="search")
            assert (done.code, str(process.pid) in done.err) == (4, True), done.err
        process.terminate()
        process.communicate()


@pytest.mark.long
def test_clean_removes_what_nothing_names_and_disk_counts_it(whole: Place) -> None:
    artifacts = whole.folder / "studies" / "artifacts"
    for stray in ("tiny/trial-00099", "tiny/.trial-00098.1.partial", "gone/trial-00000"):
        (artifacts / stray).mkdir(parents=True)
        (artifacts / stray / "weights").write_bytes(b"w" * 500_000)
    kept = {path for path in (artifacts / "tiny").iterdir() if path.name < "trial-00099" and path.name[0] != "."}
    assert "of no study" in whole.run("studies", "disk", module="search").out
    done = whole.run("studies", "clean", module="search")
    assert done.code == 0, done.err
    assert "1.5 MB freed" in done.out
    assert set((artifacts / "tiny").iterdir()) == kept
    assert not (artifacts / "gone").exists()


def test_the_doctor_finds_nothing_wrong_with_a_whole_study(whole: Place) -> None:
    done = whole.run("doctor", *STUDY, module="search")
    assert done.code == 0, done.out
    for subject in ("database", "leases", "files", "devices", "disk", "GPU", "clock"):
        assert f"ok   {subject}" in done.out


@pytest.mark.long
def test_the_doctor_mends_lost_trials_and_stray_files(place: Place) -> None:
    place.script({1: "kill_program"})
    place.run(*STUDY)
    (place.folder / "studies" / "artifacts" / "tiny" / "trial-00099").mkdir()
    found = place.run("doctor", *STUDY, module="search")
    assert found.code == 1
    assert "MEND leases     trial 1 is RUNNING, but its process is gone" in found.out
    assert "MEND files" in found.out
    assert place.run("doctor", *STUDY, "--fix", module="search").code == 0
    assert place.run("doctor", *STUDY, module="search").code == 0
    assert place.reasons()[1] == "worker_lost"


SLEEPER = "import signal; open('/proc/self/comm', 'w').write('trains-1'); print(flush=True); signal.pause()"


@pytest.mark.long
@pytest.mark.parametrize("is_ours", [True, False])
def test_the_doctor_ends_processes_of_this_run_directory_that_train_for_nobody(whole: Place, is_ours: bool) -> None:
    """`trains-1`: a process whose parent, it says, is another."""
    folder = whole.folder / ("run" if is_ours else "elsewhere")
    environment = os.environ | {"FRONTRUNNER_RUN_DIR": str(folder)}
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as stray:
        assert stray.stdout is not None
        stray.stdout.readline()
        try:
            assert (f"{stray.pid} trains for nobody" in whole.run("doctor", *STUDY, module="search").out) == is_ours
            assert whole.run("doctor", *STUDY, "--fix", module="search").code == 0
            assert is_gone(stray.pid, PATIENCE if is_ours else 2.0) == is_ours
        finally:
            stray.kill()


def test_the_doctor_sees_damage_in_networks_database_and_clock(whole: Place) -> None:
    (model,) = list((whole.folder / "studies" / "artifacts" / "tiny").iterdir())[:1]
    (model / "weights.safetensors").write_bytes(b"x")
    with sqlite3.connect(whole.database) as database:
        database.execute("UPDATE trials SET datetime_complete = '2999-01-01 00:00:00' WHERE number = 0")
    done = whole.run("doctor", *STUDY, module="search")
    assert done.code == 1
    assert "weights.safetensors damaged or missing" in done.out
    assert "BAD  clock" in done.out
    whole.database.write_bytes(b"%PDF-1.7" + b"x" * 10_000)
    assert whole.run("doctor", *STUDY, module="search").code == 4


@pytest.mark.long
def test_the_dashboard_shows_a_copy_that_nobody_can_change(whole: Place) -> None:
    with whole.started("dashboard", *STUDY, "--port", "0", module="search") as process:
        assert process.stdout is not None
        ours, url = (process.stdout.readline().split()[0] for _ in range(2))
        port = int(url.split(":")[2].split("/")[0])
        study_id = url.rsplit("/", 1)[1]

        def ask(method: str, path: str, host: str = f"127.0.0.1:{port}") -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()

        assert ask("DELETE", f"/api/studies/{study_id}")[0] == 405
        assert ask("POST", "/api/studies")[0] == 405
        assert ask("GET", "/api/studies", host="evil.example:80")[0] == 403
        status, body = ask("GET", f"/{ours.split('/', 3)[3]}")
        page = body.decode()
        assert status == 200
        assert page.index('data-figure="front"') < page.index('id="budgets"')
        assert f'href="/dashboard/studies/{study_id}"' in page
        assert ask("GET", "/", host="evil.example")[0] == 403
        status, body = ask("GET", "/api/studies")
        assert status == 200
        assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["tiny"]
        with open(f"/proc/{process.pid}/net/tcp") as table:
            assert f"0100007F:{port:04X}" in table.read()  # loopback
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert len(whole.trials()) == 7
