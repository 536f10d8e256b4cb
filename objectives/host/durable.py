"""Files that are there whole or not at all, also after a power cut. Imports the standard library only."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SUMS = "SHA256SUMS"  # in every folder written here, as `sha256sum --check` reads it
PARTIAL = ".partial"  # ends the name of what is not there yet


def write_file(path: Path, content: bytes) -> None:
    """Writes a file by way of a temporary one beside it: a reader sees the old content or the new one.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left of the new content.
    """
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which gets its name, in place of an older one, when the block ends.

    Raises:
        OSError: as `write_file`; it names the file that was asked for, unless what the block did failed elsewhere.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(partial):  # a failed write does not say of what
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # of a folder that is not there, or is read only: what failed is said
            partial.unlink()
    sync_folder(path.parent)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files with their checksums; replaces an older one of that name.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left of the new folder.
    """
    with new_folder(folder) as partial:
        for name, content in files.items():
            _write(partial / name, content)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder written here, by name: what `write_folder` makes the same folder of."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != SUMS}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which gets its name and their checksums when the block ends.

    Raises:
        OSError: as `write_folder`.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        sums = "".join(f"{_digest(path)}  {path.name}\n" for path in sorted(partial.iterdir()))
        _write(partial / SUMS, sums.encode())
        sync_all(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(folder.parent)


def damaged(folder: Path) -> list[str]:
    """Names of files that are missing, or are not what `write_folder` wrote; all well: none."""
    try:
        known = sums(folder)
    except (OSError, ValueError):
        return [SUMS]
    unknown = {path.name for path in folder.iterdir()} - {*known, SUMS}
    if not known or unknown:  # cut off
        return [SUMS]
    return [name for name, digest in known.items() if _digest(folder / name) != digest]


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder, by name, as `write_folder` wrote them beside it.

    Raises:
        OSError, ValueError: it wrote no such folder.
    """
    lines = [line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines()]
    return {name: digest for digest, name in lines}


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: a rename is safe only once its folder is."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_all(folder: Path) -> None:
    """Makes everything below a folder durable, and its name within it: for files that somebody else wrote."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # a failed write does not say of what
        raise
