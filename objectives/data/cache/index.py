"""What the files of a folder hold, remembered by their sizes and times: a second start reads none of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from objectives.data.cache.progress import Progress
from objectives.data.decoding import NO_IMAGE
from objectives.data.layout.listing import HEAD, File, kind, named_as_image
from objectives.host import durable

FOLDER = "index"
READING = "reading"  # what a Progress is told
UNREADABLE = "unreadable"  # the content of what cannot be read today and may be tomorrow, with the same times
_EVERY = 256  # files between two words of progress


@dataclass(frozen=True)
class Index:
    """What is remembered of one folder."""

    path: Path
    top: str  # the real path of the folder
    contents: Mapping[str, tuple[tuple[int, int, int], str]]  # relative path of a file: (its stamp, its content)
    wholes: Mapping[str, str]  # size: the name of the shard that holds all its images

    @classmethod
    def of(cls, place: Path, top: Path) -> Index:
        """What is remembered; of a folder that was never seen, or where it is damaged, nothing."""
        real = os.path.realpath(top)
        path = place / FOLDER / hashlib.sha256(os.fsencode(real)).hexdigest()
        return cls.at(path) or cls(path, real, {}, {})

    @classmethod
    def all(cls, place: Path) -> Iterator[Index]:
        """What is remembered of every folder."""
        return filter(None, map(cls.at, (place / FOLDER).iterdir()))

    @classmethod
    def at(cls, path: Path) -> Index | None:
        """What a file of the index says; None where there is none, or it is damaged."""
        try:
            head, _, body = path.read_text("ascii").partition("\n")
            if head != _sum(path.name, body):
                return None
            said = json.loads(body)
        except (OSError, ValueError):
            return None
        contents = {relative: (tuple(stamp), content) for relative, *stamp, content in said["files"]}
        return cls(path, said["top"], contents, said["wholes"])

    def known(self, files: Sequence[File]) -> list[str] | None:
        """The content of each file, if all are as they were."""
        found = [self.contents.get(file.relative) for file in files]
        if any(each is None or each[0] != file.stamp for each, file in zip(found, files, strict=True)):
            return None
        return [each[1] for each in found if each is not None]

    def read(self, files: Sequence[File], progress: Progress) -> list[str]:
        """The content of each file; what changed is read."""
        found = []
        for done, file in enumerate(files, start=1):
            stamp, content = self.contents.get(file.relative, ((), ""))
            found.append(content if stamp == file.stamp else content_of(file.path))
            if done % _EVERY == 0 or done == len(files):
                progress(READING, done, len(files))
        return found

    def written(self, files: Sequence[File], contents: Sequence[str], wholes: Mapping[str, str]) -> Index:
        """What is to be remembered from now on, on the disk.

        Raises:
            OSError: it cannot be written.
        """
        pairs = [(file, content) for file, content in zip(files, contents, strict=True) if content != UNREADABLE]
        fresh = replace(
            self,
            contents={file.relative: (file.stamp, content) for file, content in pairs},
            wholes=wholes,
        )
        if fresh != self:
            rows = [[relative, *stamp, content] for relative, (stamp, content) in fresh.contents.items()]
            body = json.dumps({"top": self.top, "wholes": fresh.wholes, "files": rows})
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_file(self.path, f"{_sum(self.path.name, body)}\n{body}".encode())
        return fresh


def content_of(path: str) -> str:
    """The SHA-256 of a file; of one that is no image nothing is read but its beginning: it is NO_IMAGE."""
    try:
        with open(path, "rb") as stream:
            if kind(stream.read(HEAD)) is None and not named_as_image(path):
                return NO_IMAGE
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return UNREADABLE


def _sum(name: str, body: str) -> str:
    """A digest of what a file of the index says and of its name, so that no other file can stand in."""
    return hashlib.sha256(f"{name} {body}".encode()).hexdigest()
