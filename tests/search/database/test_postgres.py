"""One study in a PostgreSQL database: shared by several runs, through kills and restarts of the server."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from optuna.trial import FrozenTrial

from search.study import records
from tests.search.database.postgres import PASSWORD, NotInstalled, Server, running
from tests.search.place import PATIENCE, Place, check_whole, wait_for

STUDY = ("--study", "tiny")


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(running(durable=False))
        except NotInstalled as error:
            pytest.skip(str(error))
        yield started


@pytest.fixture
def shared(place: Place, server: Server) -> Place:
    """A working directory whose studies lie in an empty database of the server."""
    return replace(place, server=server.database())


def drawn(trials: list[FrozenTrial]) -> list[str]:
    """What the sampler chose, apart from anchors and from what was tried again."""
    given = (records.ANCHOR, records.RETRY_OF)
    return [str(t.params) for t in trials if not any(name in t.user_attrs for name in given)]


def together(place: Place, n: int, n_trials: int) -> list[tuple[int, str]]:
    """(exit code, what was said) of so many runs of one study that start at once."""
    words = (*STUDY, "--sampler", "random", "--device", "cpu", "--workers", str(n), "--n-trials", str(n_trials))
    with ExitStack() as stack:
        processes = [stack.enter_context(place.started(*words)) for _ in range(n)]
        said = [process.communicate(timeout=PATIENCE) for process in processes]
    return [(process.returncode, "".join(each)) for process, each in zip(processes, said, strict=True)]


def test_eight_runs_that_start_at_once_share_a_fresh_study(shared: Place) -> None:
    shared.script(pause=0.05)
    ended = together(shared, 8, 24)
    assert [code for code, _ in ended] == [0] * 8, ended
    trials = shared.trials()
    check_whole(trials, 24)
    assert len(trials) == 24
    assert len(set(drawn(trials))) == len(drawn(trials))
    assert len({t.user_attrs[records.OWNER]["pid"] for t in trials}) > 1
    assert not any(PASSWORD in said for _, said in ended)


def test_an_owner_that_is_killed_beside_another_one_loses_one_trial_which_is_tried_again(shared: Place) -> None:
    shared.script({3: "kill_program"}, pause=0.05)
    ended = together(shared, 2, 12)
    assert sorted(code for code, _ in ended) == [-signal.SIGKILL, 0], ended
    trials = shared.trials()
    assert [records.reason(t) for t in trials].count(records.LOST) == 1
    assert len([t for t in trials if records.RETRY_OF in t.user_attrs]) == 1
    assert len(set(drawn(trials))) == len(drawn(trials))
    check_whole(trials, 12)


def test_a_worker_that_is_killed_has_its_trial_tried_again(shared: Place) -> None:
    shared.script({0: "SIGKILL"})
    done = shared.run(*STUDY)
    assert done.code == 0, done.err
    assert shared.reasons() == ["crash", *["complete"] * 7]
    check_whole(shared.trials(), 7)


@pytest.mark.parametrize("sampler", ["pareto", "random"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_restarts_in_mid_study_is_waited_for(
    how: signal.Signals, sampler: str, shared: Place, server: Server
) -> None:
    shared.script(pause=0.1)
    with ExitStack() as stack:  # not -v: what is not read while the other one is waited for has to fit into a pipe
        words = (*STUDY, "--sampler", sampler, "--workers", "2", "--n-trials", "24")
        processes = [stack.enter_context(shared.started(*words)) for _ in range(2)]
        for process in processes:
            wait_for(process, "of 24 trials")
        for _ in range(3):
            server.stop(how)
            time.sleep(1)
            server.start()
            time.sleep(1)
        said = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trials = shared.trials()
    check_whole(trials, 24)
    lost = [t for t in trials if records.reason(t) == records.LOST]  # begun when the server went: tried again
    assert len(trials) == 24 + len(lost)
    assert len(set(drawn(trials))) == len(drawn(trials))


def test_a_result_that_the_server_does_not_take_is_kept_and_told_later(shared: Place, server: Server) -> None:
    shared.script(pause=0.3, busy=0.2, tell=0.5)
    with shared.started(*STUDY, "-v") as process:
        wait_for(process, "trial 0: epoch 2 of")
        server.stop()
        _, err = process.communicate(timeout=PATIENCE)
    server.start()
    assert process.returncode == 4, err
    assert "the result of trial 0 is kept in" in err
    assert PASSWORD not in err
    assert shared.reasons()[0] == "running"
    shared.script()
    assert shared.run(*STUDY).code == 0
    assert shared.reasons() == ["complete"] * 7
    assert not list(shared.folder.rglob("untold/*"))
    check_whole(shared.trials(), 7)


def test_the_way_to_go_on_is_said_without_the_password(shared: Place) -> None:
    assert shared.server is not None
    shared.script(pause=0.3)
    for words in (("--storage", shared.server), (f"--storage={shared.server}",)):
        with shared.started(*STUDY, "-v", *words) as process:
            wait_for(process, "epoch 1 of")
            process.terminate()
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "to go on: python -m search.run --study tiny -v " in err
        assert "postgresql://u:***@" in err
        assert PASSWORD not in out + err


def test_doctor_studies_and_dashboard_work_with_a_server(shared: Place) -> None:
    assert shared.run(*STUDY, "-q").code == 0
    examined = shared.run("doctor", *STUDY, module="search")
    assert examined.code == 0, examined.out + examined.err
    assert "7 trials read and numbered without a gap; page checksums off" in examined.out
    listed = shared.run("studies", "list", module="search")
    assert "tiny" in listed.out
    with shared.started("dashboard", *STUDY, "--port", "0", module="search") as process:
        assert process.stdout is not None
        process.stdout.readline()  # our own page
        address = process.stdout.readline().split()[0].removeprefix("http://")
        connection = http.client.HTTPConnection(address.partition("/")[0], timeout=PATIENCE)
        connection.request("GET", f"/api/studies/{address.rsplit('/', 1)[1]}?after=0")
        answer = connection.getresponse()
        assert (answer.status, len(json.loads(answer.read())["trials"])) == (200, 7)
        connection.close()
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=PATIENCE))
    renamed = shared.run("studies", "rename", "tiny", "other", module="search")
    assert renamed.code == 0, renamed.err
    assert shared.run("studies", "delete", "other", "--yes", module="search").code == 0
    assert PASSWORD not in said + examined.out + listed.out
