"""What a process inherits: signals, streams, a locale, a user, folders. The real program, with a scripted objective."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.search.place import PATIENCE, START, Done, Place, is_gone, wait_for

pytestmark = pytest.mark.long

STUDY = ("--study", "tiny", "--device", "cpu")
DASHBOARD, SEVERAL = "search.__main__", "tests.search.several"
STRICT = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
# As root nothing is forbidden: another user, whom this machine does not know, who may read what root may.
NOBODY = (
    "setpriv --reuid=54321 --regid=54321 --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
AS_USER = f'exec {NOBODY} "$@"' if os.getuid() == 0 else START


def given_away(folder: Path) -> None:
    """Makes a folder and all in it the property of the user of `AS_USER`."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 54321, 54321)
    for above in folder.parents[:3]:  # pytest's are for its user alone
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)


def codes(done: Done) -> dict[str, int]:
    """The exit code of each of several commands, by its first words."""
    said = [line[1:].split("] ", 1) for line in done.out.splitlines() if line[:1] == "[" and "] " in line]
    return {line: int(code) for code, line in said}


def test_signals_that_were_ignored_at_the_start_stay_ignored(place: Place) -> None:
    """As `nohup` and a shell without job control start a program. The dashboard, too."""
    place.script(pause=0.2)
    deaf = 'trap "" HUP INT; exec "$@"'
    with place.started(*STUDY, "--n-trials", "1", "-v", shell=deaf) as process:
        wait_for(process, "epoch 1 of")
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGHUP):
            os.killpg(process.pid, number)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert place.reasons()[0] == "complete"
    with place.started("dashboard", "--study", "tiny", "--port", "0", module=DASHBOARD, shell=deaf) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[2].split("/")[0])
        os.killpg(process.pid, signal.SIGHUP)
        os.killpg(process.pid, signal.SIGINT)
        for host, status in (("127.0.0.1", 200), ("LocalHost:80", 200), ("evil.example", 403), ("[::1", 403)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/api/studies", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


def test_a_study_goes_on_when_nobody_listens_any_more(place: Place) -> None:
    with place.started(*STUDY, "--n-trials", "2") as process:
        wait_for(process, "trial 0")
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout is not None
        assert "2 complete" in process.stdout.read()
        process.wait(timeout=PATIENCE)
    assert process.returncode == 0
    assert is_gone(process.pid)
    done = place.run(*STUDY, "--n-trials", "3", shell=f"{START} <&- >&- 2>&-")
    assert done == Done(0, "", "")
    assert place.reasons()[:3] == ["complete"] * 3
    full = place.run(*STUDY, "--n-trials", "3", "-q", "--json", shell=f"{START} >/dev/full")
    assert (full.code, full.err.count("\n"), "No space left" in full.err) == (4, 1, True)


def test_a_study_lives_in_any_folder_under_any_locale_by_all_its_names(place: Place, tmp_path: Path) -> None:
    """A folder with a byte that is no UTF-8, what a URL would take for its own, and what a pattern would."""
    odd = tmp_path / "M\udcfcll \u00fc per%20cent what? #{brace} [x]*"
    odd.mkdir()
    (tmp_path / "studies").rename(odd / "studies")
    (tmp_path / "link.db").symlink_to(odd / "studies" / "optuna.db")
    there = Place(odd)
    there.script()
    spec = odd / "studies" / "tiny.toml"
    spec.write_bytes(b"\xef\xbb\xbf" + spec.read_bytes().replace(b"\n", b"\r\n"))  # as Windows' editors write it
    done = there.run(*STUDY, "--study", str(spec), "--n-trials", "2", "--json", **STRICT)
    assert (done.code, done.out.isascii()) == (0, True), done.err
    assert json.loads(done.out)["trials"]["complete"] == 2
    by_link = f"--storage sqlite:///{tmp_path}/link.db"
    lines = ["studies list", f"studies {by_link} show tiny", f"doctor {by_link} --study tiny", "studies clean"]
    done = there.run(*lines, module=SEVERAL, **STRICT)
    assert codes(done) == dict.fromkeys(lines, 0), done.out + done.err
    assert f"{tmp_path}/M\\xfcll \\xc3\\xbc per%20cent what? #{{brace}} [x]*/studies/artifacts/tiny" in done.out
    assert f"dashboard --study tiny {by_link}" in done.out
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {odd.name}
    words = ("dashboard", "--study", "tiny", "--port", "0")
    with there.started(*words, module=DASHBOARD, TMPDIR=str(odd), **STRICT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:"), process.communicate()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert not list(odd.glob("frontrunner-dashboard-*"))


def test_a_user_without_name_home_or_place_to_write_is_served_as_far_as_it_goes(place: Place) -> None:
    """A container's user; then one who may only read."""
    given_away(place.folder)
    nobody = AS_USER.replace("exec", "exec env -u HOME -u USER -u LOGNAME -u XDG_CACHE_HOME", 1)
    done = place.run(*STUDY, "--n-trials", "2", "-q", shell=nobody)
    assert done.code == 0, done.err
    lines = ["studies list", "studies show tiny", "doctor --study tiny", "studies disk"]
    done = place.run(*lines, "studies clean --cache", module=SEVERAL, shell=nobody)
    assert codes(done) == dict.fromkeys((*lines, "studies clean --cache"), 0), done.out + done.err
    studies = place.folder / "studies"
    for path in (*studies.rglob("*"), studies):
        path.chmod(path.stat().st_mode & ~0o222)
    changing = ["studies rename tiny x", "studies delete tiny --yes", "studies clean", "run --study tiny --device cpu"]
    done = place.run(*lines, *changing, module=SEVERAL, shell=nobody)
    assert codes(done) == dict.fromkeys(lines, 0) | {"doctor --study tiny": 1} | dict.fromkeys(changing, 4), done.err
    assert done.err.count("optuna.db is read-only here: copy it") == done.err.count("\n") == len(changing)
    with place.started("dashboard", "--study", "tiny", "--port", "0", module=DASHBOARD, shell=nobody) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:"), process.communicate()
