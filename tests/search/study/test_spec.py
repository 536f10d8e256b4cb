"""A study file is data: what it may not say is refused in one line that names the way out."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from objectives.task import DataSpec
from objectives.words import printable
from search.errors import UsageError
from search.study import asked, spec
from search.study.spec import StudySpec
from tests.search.conftest import TOML

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "studies").glob("*.toml")), ids=lambda p: p.stem)
def test_every_study_that_is_shipped_is_valid(path: Path) -> None:
    assert spec.read(str(path))[0] == path.stem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("n_trials = 7", "n_trails = 5", "search.n_trails: unknown key; did you mean 'n_trials'?"),
        ("[data]", "[date]\n[data]", "date: unknown key; did you mean 'data'?"),
        ("n_trials = 7", "n_trials = 0", "search.n_trials = 0: it must be at least 1"),
        ("n_trials = 7", "metric = 'plain'", "search.metric: unknown key; metric stands at the top, before"),
        ("n_trials = 7", "width = [1, 2]", "search.width: unknown key; it is a key of [space]"),
        ("n_trials = 7", "space = 'everything'", "search.space: unknown key; [space] is a section of its own"),
        ("n_trials = 7", "lr = 0.1", "it is a parameter of spaces: [space.fix] lr = ... fixes it"),
        ("n_trials = 7", "n_trials = 5.5", "search.n_trials = 5.5: it must be a whole number"),
        ("repeats = 0", "repeats = 6", "search.repeats = 6: it must be at most 5"),
        ("n_trials = 7", "n_trials = 7\nstopping = 'frond'", "unknown stopping 'frond'; did you mean 'front'?"),
        (
            "n_trials = 7",
            "n_trials = 7\nsampler = 'os.system'",
            "search.sampler = \"os.system\": it must be 'pareto', 'tpe', 'nsga2', 'gp' or",
        ),
        ("n_trials = 7", "n_trials = 7\ntimeout = inf", "search.timeout"),
        ("n_trials = 7", "n_trials = 7\nfloor = nan", "search.floor"),
        ("name = 'digits'", "name = 'digit'", "unknown data set 'digit'; did you mean 'digits'?"),
        ("name = 'digits'", "name = 'folder:'", "'folder:' names no folder: say folder:PATH"),
        ("name = 'digits'", "name = 'folder:x'\nlabels = ''", 'data.labels = "": it must not be empty'),
        ("name = 'digits'", "name = 'digits'\nroot = ''", 'data.root = "": it must not be empty'),
        ("[data]", "storage = ''\n[data]", 'storage = "": it must not be empty'),
        ("n_trials = 7", "n_trials = " + "7" * 5000, "a number of thousands of digits: no number of a study"),
        ("[search]", "[space]\n[search]", "section [space] stands there twice (at line"),
        ("[search]", "[space.fix]\n[space.fix]\n[search]", "section [space.fix] stands there twice (at line"),
        (
            "family = 'small'",
            "family = 'tiny'",
            "= \"tiny\": it must be 'small', 'thin', 'wide', 'fast', 'imagenet18', ",
        ),
        ("n_train = 200", "n_train = 1", "n_train is 1"),
        ("n_train = 200", "n_train = 200\nsize = 3000", "size is 3000"),
        ("n_train = 200", "n_train = 200\nchannels = 4", "channels is 4"),
        ("epochs = [2, 4]", "epochs = [4, 2]", "space: epochs = [4, 2]: the least comes first"),
        (
            "epochs = [2, 4]",
            "epochs = [2]",
            "space.epochs: it must be a range, epochs = [least, most], two whole numbers",
        ),
        (
            "epochs = [2, 4]",
            "epochs = 4",
            "space.epochs: it must be a range, epochs = [least, most], two whole numbers",
        ),
        ("epochs = [2, 4]", "epochs = [0, 4]", "space.epochs = 0: it must be at least 1"),
        ("epochs = [2, 4]", "", "space.epochs: it must be a range, epochs = [least, most], two whole"),
        ("[network]\nfamily = 'small'", "", "[network] is missing"),
        (
            "[search]",
            "[space.fix]\nprune.share = 0.4\n[search]",
            '[space.fix] prune.share: a name with a dot stands in quotes: "prune.share" = 0.4',
        ),
        ("[search]", "[space.fix]\nprune = true\nprune.share = 0.4\n[search]", "a name with a dot stands in quotes"),
        ("[search]", "[space.fix.resolution]\nstart = 8\n[search]", 'in quotes: "resolution.start" = 8'),
        ("[search]", "[space.exclude]\nprune.interval = 2\n[search]", 'in quotes: "prune.interval" = 2'),
        (
            "[search]",
            "[space.fix]\nlr = [0.1, 0.2]\n[search]",
            "[space.fix] lr: it must be a number, text, true or false",
        ),
        ("family = 'small'", "family = small", "text stands in quotes, true and false are written small"),
        ("family = 'small'", "family = 'small'\nstem_stride = true", "stem_stride = true: it must be a whole number"),
        ("batch_size = [32, 64]", "batch_size = [32, 48]", "both must be powers of two"),
        ("epochs = [2, 4]", "epochs = [2, 4]\nname = 'acceleraton'", "did you mean 'acceleration'?"),
        ("epochs = [2, 4]", "epochs = [2, 4]\nname = '../evil'", "unknown space '../evil'"),
        (
            "[search]",
            "[space.fix]\ngrw = true\n[search]",
            "[space.fix] grw: no such parameter; did you mean 'grow'?",
        ),
        ("[search]", "[space.fix]\nlr = 1000\n[search]", "[space.fix] lr = 1000: it must lie between 0.2 and 6.4"),
        ("[search]", "[space.fix]\nfreeze = 1\n[search]", "[space.fix] freeze = 1: it must be one of false, true"),
        (
            "[search]",
            "[space.fix]\nnumber_format = 'bf16'\n[space.exclude]\nnumber_format = 'bf16'\n[search]",
            '[space] number_format: "bf16" is what fix says and what exclude leaves out: drop one of them',
        ),
        ("epochs = [2, 4]", "epochs = [2, 4]\nexecutors = ['eager', 'eager']", "one of them comes twice"),
        ("[search]", "[space.fix]\nepochs = 7\n[search]", "epochs = 7: it must be a whole number between 2 and 4"),
        ("[search]", "[space.fix]\n'swa.start' = 0.7\n[search]", 'swa.start: the space "everything" asks it'),
        ("[search]", "[space.fix]\n'prune.lpr' = 0.4\n[search]", "no such parameter any more; it is 'prune.share'"),
        (
            "[search]",
            "[space.fix]\nprune.lpr = 0.4\n[search]",
            "prune.lpr: no such parameter any more; it is",
        ),
        (
            "[search]",
            "[space.fix]\nprune.shape = 0.4\n[search]",
            "did you mean 'prune.share'?; a name with a dot",
        ),
        (
            "epochs = [2, 4]\nbatch_size = [32, 64]\ndepth = [1, 1]",
            "epochs = [1, 1]\n[space.fix]\nfreeze = true",
            "freeze: it has no effect in runs as these (epochs = [1, 1], images of 8 pixels) and is not asked",
        ),
        ("[search]", "[space.exclude]\nlr = 0.1\n[search]", "[space.exclude] lr: only values of a choice"),
        ("[search]", "[space.exclude]\nfreeze = [true, false]\n[search]", "every value is excluded"),
        ("[search]", "[search", "not a readable TOML file"),
    ],
)
def test_what_a_study_file_may_not_say_is_refused_in_one_line(old: str, new: str, said: str, study_file: Path) -> None:
    text = TOML.replace('"', "'")
    assert old in text
    study_file.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as refused:
        spec.read(str(study_file))
    assert said in str(refused.value)
    assert str(study_file) in str(refused.value)
    assert "\n" not in str(refused.value)


VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, "cifar10", "folder:\0", [2, 4]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SECTIONS = ["", "data", "network", "space", "space.fix", "space.exclude", "search", "\n"]
KEYS = [
    *(key for section in tomllib.loads(TOML).values() for key in section),
    *("timeout", "floor", "root", "size", "width", "storage", "description", "lr", "prune", "prune.share", "\n\x1b[2J"),
]
CHANGES = st.lists(st.tuples(st.sampled_from(SECTIONS), st.sampled_from(KEYS) | st.text(), VALUES), min_size=1)
fuzzed = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(changes=CHANGES)
def test_whatever_a_study_file_says_it_is_a_study_in_bounds_or_one_line(
    study_file: Path, changes: list[tuple[str, str, object]]
) -> None:
    document = tomllib.loads(TOML)
    for section, key, value in changes:
        place: object = document
        for part in filter(None, section.split(".")):
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[key] = value
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spec, "contents", lambda _: document)
        check_refused_or_bounded(study_file)


@fuzzed
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(content=b"x = " + b"[" * 50_000)
@example(content=b"x = " + b"9" * 5_000)
@example(content=b"[space.fix]\nlr = 0x" + b"f" * 5_000 + b"\n")
@example(content=b"#" * 1_000_000)
@example(content=b"description = '\xff'")
def test_whatever_bytes_a_study_file_has_it_is_a_study_in_bounds_or_one_line(study_file: Path, content: bytes) -> None:
    study_file.write_bytes(content + TOML.encode())
    check_refused_or_bounded(study_file)


def check_refused_or_bounded(path: Path) -> None:
    refused = ""
    try:
        read = spec.read(str(path))[1].model_dump()
    except UsageError as error:
        refused, read = str(error), {}
    assert refused == printable(refused)
    assert all(abs(number) <= 2**32 for number in numbers(read))


def numbers(value: object) -> list[float]:
    if isinstance(value, (dict, list, tuple)):
        return [n for inner in (value.values() if isinstance(value, dict) else value) for n in numbers(inner)]
    return [value] if isinstance(value, (int, float)) else []


WRONG = ("x", 4, -3, 0.4, True, [], [4], [1, 2, 3], ["a"], [0.5], {}, {"a": 1}, {"a": {"b": 1}}, date(1979, 5, 27))
EVERY_KEY = [("", key) for key in spec.StudySpec.model_fields] + [
    (name, key)
    for name, section in spec.StudySpec.model_fields.items()
    if hasattr(section.annotation, "model_fields")
    for key in section.annotation.model_fields
]


@pytest.mark.parametrize(("section", "key"), EVERY_KEY)
def test_what_is_wrong_is_said_in_words_of_toml(
    section: str, key: str, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []
    for value in WRONG:
        document = tomllib.loads(TOML)
        (document[section] if section else document)[key] = value
        monkeypatch.setattr(spec, "contents", lambda _, content=document: content)
        try:
            spec.read(str(study_file))
        except UsageError as error:
            refused.append(str(error).lower())
    assert len(refused) >= len(WRONG) / 2
    for words in ("input should", "tuple", "dictionary", "instance", "valid", "field required", "validation"):
        assert [message for message in refused if words in message] == []


def test_all_mistakes_of_a_file_are_told_at_once(study_file: Path) -> None:
    study_file.write_text(TOML.replace("n_trials = 7", "n_trials = 0").replace('"small"', '"tiny"'))
    with pytest.raises(UsageError, match=r"network\.family.*search\.n_trials"):
        spec.read(str(study_file))


def test_an_unknown_study_is_refused_with_the_closest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(UsageError, match="did you mean 'cifar_pareto'"):
        spec.read("cifar_parteo")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/tmp", "'/tmp' is a folder: name a file that is there, or a study; known are cifar_pareto"),
        (".", "'.' is a folder"),
        ("studies/", "'studies/' is a folder"),
        (
            "digits_parteo.toml",
            "name a file that is there, or a study; did you mean 'digits_pareto'?",
        ),
        ("nowhere/x.toml", "there is no study file 'nowhere/x.toml'"),
    ],
)
def test_a_path_that_is_no_study_file_is_refused_with_the_way_out(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(UsageError) as refused:
        spec.read(given)
    assert said in str(refused.value)


def test_the_studies_that_come_with_the_program_are_found_everywhere_and_a_file_here_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec.read("digits_pareto")[1].search.n_trials == 32
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "digits_pareto.toml").write_text(TOML)
    assert spec.read("digits_pareto")[1].search.n_trials == 7
    with pytest.raises(UsageError, match="known are cifar_pareto, digits_pareto, digits_reduce, fashion_pareto, "):
        spec.read("xyz")


@given(st.text(max_size=80))
def test_a_study_name_cannot_leave_its_folder(name: str) -> None:
    try:
        checked = spec.check_name(name)
    except UsageError:
        return
    assert checked == name
    assert Path("studies", f"{name}.toml").resolve().parent == Path("studies").resolve()
    assert 1 <= len(name) <= 64
    assert name.isascii()


def test_overrides_that_change_identity_never_touch_the_plain_study(study_file: Path) -> None:
    name, plain = spec.read(str(study_file))
    seen = {name}
    for change in ({"data": "folder:/images"}, {"n_train": 100}, {"n_train": 101}, {"seed": 7}):
        values = {"data": None, "root": None, "n_train": None, "seed": None} | change
        derived, changed = asked.override(name, plain, **values)  # type: ignore[arg-type]
        assert derived not in seen
        assert asked.override(name, plain, **values)[0] == derived  # type: ignore[arg-type]
        assert changed != plain
        assert spec.check_name(derived).startswith("tiny-")
        seen.add(derived)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two classes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
    return tmp_path / "images"


def test_a_folder_gives_one_name_wherever_it_lies_and_however_it_is_written(study_file: Path, images: Path) -> None:
    name, plain = spec.read(str(study_file))
    (images.parent / "link").symlink_to(images)

    def derived(data: str, **changes: str) -> str:
        values = {"root": None, "n_train": None, "seed": None} | changes
        return asked.override(name, plain, data, **values)[0]  # type: ignore[arg-type]

    plainly = derived(f"folder:{images}")
    assert plainly.startswith("tiny-folder-")
    assert {
        derived(f"folder:{path}") for path in (f"{images}/", "images", "./images//", "images/../images", "link")
    } == {plainly}
    assert derived("folder:images", root=str(images.parent)) == plainly
    (images / "ant" / "new.png").touch()  # the study itself tells of it
    (images.parent / "elsewhere").mkdir()
    images.rename(images.parent / "elsewhere" / "images")
    assert derived("folder:elsewhere/images") == plainly
    assert asked.override(name, plain, "folder:images", "elsewhere", None, None)[1].data.name == (
        f"folder:{images.parent}/elsewhere/images"
    )
    others = {derived("folder:elsewhere"), derived("folder:elsewhere/images", labels="a.csv"), derived("digits")}
    assert len(others | {plainly}) == 4


@pytest.mark.parametrize("path", ["images", "./images", "{0}", "images/", "..", "~nosuchuser/x"])
def test_a_path_for_a_name_is_told_how_it_is_meant(path: str, study_file: Path, images: Path) -> None:
    name, plain = spec.read(str(study_file))
    given = path.format(images)
    with pytest.raises(UsageError, match=f"did you mean 'folder:{re.escape(given)}'"):
        asked.override(name, plain, given, None, None, None)


@pytest.mark.parametrize("path", ["~nosuchuser/x", "nowhere", "\udcff", "a\nb"])
def test_a_folder_that_is_not_there_is_left_to_whoever_reads_it(path: str, study_file: Path, images: Path) -> None:
    name, plain = spec.read(str(study_file))
    derived, changed = asked.override(name, plain, f"folder:{path}", None, None, None)
    assert spec.check_name(derived) == derived
    assert changed.data.name == f"folder:{path}"


def test_a_table_of_labels_goes_with_a_folder(study_file: Path, images: Path) -> None:
    name, plain = spec.read(str(study_file))
    with pytest.raises(
        UsageError, match=r"labels = 'x\.csv' names the images of a folder: say folder:PATH, not digits"
    ):
        asked.override(name, plain, None, None, None, None, "x.csv")
    (images.parent / "x.csv").touch()
    derived, changed = asked.override(name, plain, "folder:images", None, None, None, "x.csv")
    assert changed.task.data.labels == f"{images.parent}/x.csv"
    assert derived != asked.override(name, plain, "folder:images", None, None, None)[0]
    study_file.write_text(TOML.replace('"digits"', '"folder:images"\nlabels = "x.csv"\nfollow_links = true'))
    read = spec.read(str(study_file))[1].task.data
    assert (read.labels, read.follow_links) == ("x.csv", True)
    assert asked.override(*spec.read(str(study_file)), "digits", None, None, None)[1].data.labels is None


def test_a_folder_has_the_images_that_it_has_whatever_number_the_study_file_says(
    study_file: Path, images: Path
) -> None:
    name, plain = spec.read(str(study_file))
    found = [
        asked.override(name, plain, data, None, n, None)[1].data for data in ("folder:images", None) for n in (None, 9)
    ]
    assert [data.n_train for data in found] == [None, 9, 200, 9]


def test_where_data_lies_is_no_part_of_the_name(study_file: Path) -> None:
    name, plain = spec.read(str(study_file))
    derived, changed = asked.override(name, plain, None, "/data", None, None)
    assert (derived, changed.data.root) == (name, "/data")


def test_an_override_that_no_study_file_could_have_is_refused(study_file: Path) -> None:
    name, plain = spec.read(str(study_file))
    with pytest.raises(UsageError, match=r"command line: .*did you mean 'cifar10'"):
        asked.override(name, plain, "cifar01", None, None, None)
    with pytest.raises(UsageError, match="'folder:' names no folder"):  # it was the working directory
        asked.override(name, plain, "folder:", None, None, None)


# --- a study file and a command line that names the data, too ---------------------------------------------------------


def in_folder(path: Path, n_train: int | None = None) -> DataSpec:
    return asked.asked_data(f"folder:{path}", None, None, n_train, 0)


@pytest.fixture
def of_images(study_file: Path, images: Path) -> StudySpec:
    """A study of a folder, 30 of whose images are trained on, with seed 3."""
    words = TOML.replace('"digits"', f'"folder:{images}"').replace("n_train = 200", "n_train = 30")
    words = words.replace("[search]", "[search]\nseed = 3")
    study_file.write_text(words)
    return spec.read(str(study_file))[1]


def test_data_that_a_command_line_names_beside_a_study_file_are_looked_for_where_they_lie_now(
    of_images: StudySpec, images: Path, tmp_path: Path
) -> None:
    assert asked.of_data("x.toml", of_images, in_folder(images), None) == of_images
    assert asked.of_data("x.toml", of_images, in_folder(images, 30), 3) == of_images
    moved = tmp_path / "elsewhere" / images.name
    moved.parent.mkdir()
    images.rename(moved)
    found = asked.of_data("x.toml", of_images, in_folder(moved), None)
    assert (found.data.name, found.data.n_train, found.search.seed) == (f"folder:{moved.resolve()}", 30, 3)


@pytest.mark.parametrize(
    ("n_train", "seed", "said"),
    [(31, None, "of 30 training images"), (None, 4, "of seed 3"), (None, 0, "of seed 3"), (31, 4, "images, of seed 3")],
)
def test_a_study_file_of_other_images_or_another_seed_is_refused(
    n_train: int | None, seed: int | None, said: str, of_images: StudySpec, images: Path
) -> None:
    with pytest.raises(UsageError, match=f"^x.toml is that of a study .*{said}: --as NAME for another one$"):
        asked.of_data("x.toml", of_images, in_folder(images, n_train), seed)


@pytest.mark.parametrize("twin", ["other", "images"], ids=["another name", "other classes"])
def test_a_study_file_of_another_folder_is_refused(twin: str, of_images: StudySpec, tmp_path: Path) -> None:
    other = tmp_path / "twins" / twin
    (other / "a class of its own").mkdir(parents=True)
    with pytest.raises(UsageError, match="that of a study of folder:"):
        asked.of_data("x.toml", of_images, in_folder(other), None)


@pytest.mark.parametrize(("known", "said"), [("digits", "fashion_mnist"), ("digits", "images"), ("images", "digits")])
def test_a_study_file_of_another_kind_of_data_is_refused(known: str, said: str, study_file: Path, images: Path) -> None:
    place = {"digits": "digits", "fashion_mnist": "fashion_mnist", "images": f"folder:{images}"}
    study_file.write_text(TOML.replace('"digits"', f'"{place[known]}"'))
    of, data = spec.read(str(study_file))[1], asked.asked_data(place[said], None, None, None, 0)
    with pytest.raises(UsageError, match="that of a study of"):
        asked.of_data("x.toml", of, data, None)
    assert asked.of_data("x.toml", of, asked.asked_data(place[known], None, None, None, 0), None) == of
