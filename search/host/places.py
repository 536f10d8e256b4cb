"""Where files lie on this machine unless something else is said."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from search.errors import StorageError

STUDIES = Path("studies")  # study files by name, the default database and what belongs to it; in the working directory
BUILT_IN = Path(__file__).parents[2] / "studies"  # the study files that come with the program: beside its packages
RUN_DIRECTORY = "FRONTRUNNER_RUN_DIR"  # the environment variable that says where the locks of runs lie


def study_files() -> dict[str, Path]:
    """The study files that a name can mean: those of the working directory, then the built-in ones."""
    return {path.stem: path for folder in (BUILT_IN, STUDIES) for path in sorted(folder.glob("*.toml"))}


def run_folder() -> Path:
    """Where the locks of this user's runs lie on this host: FRONTRUNNER_RUN_DIR, or a folder for temporary files.

    Raises:
        StorageError: there is none.
    """
    given = os.environ.get(RUN_DIRECTORY)
    if given and given.startswith("~"):  # no shell has replaced it
        raise StorageError(f"{RUN_DIRECTORY} is {given!r}: there is no such home folder, say the path itself")
    if given:
        return Path(given)
    try:
        return Path(tempfile.gettempdir()) / f"frontrunner-{os.getuid()}"
    except OSError as error:
        raise StorageError(f"there is no folder for temporary files: set {RUN_DIRECTORY} to one for locks") from error
