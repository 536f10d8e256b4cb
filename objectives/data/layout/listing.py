"""What lies in a folder of images: class folders, files, links. Names and sizes only; `is_image` alone opens a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What archives, cameras' cards, network drives and notebooks leave behind, in lower case; hidden names go as well.
IGNORED = frozenset(
    (
        *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"),
        *("thumbs.db", "desktop.ini"),
    )
)
# Hidden folders that hold no images that were meant, up to a '-': of versions, caches, thumbnails, wastebaskets.
KNOWN_HIDDEN = frozenset(
    (
        *(".git", ".hg", ".svn", ".dvc", ".idea", ".vscode", ".venv", ".cache", ".ipynb_checkpoints"),
        *(".thumbs", ".thumbnails", ".@__thumb", ".picasaoriginals", ".appledouble", ".spotlight", ".fseventsd"),
        *(".trash", ".trashes", ".snapshot", ".snapshots", ".zfs"),
    )
)
# Files of these names were meant as images: one that cannot be read is told. Any other name is no promise.
IMAGE_NAMES = frozenset(
    (
        *("jpg", "jpeg", "jfif", "jpe", "png", "ppm", "pgm", "pbm", "pnm", "bmp", "dib", "tif", "tiff", "webp", "gif"),
        *("avif", "heic", "heif", "jp2", "j2k", "jpx", "jxl", "ico", "psd", "svg", "tga", "exr", "hdr", "dcm"),
        *("raw", "cr2", "cr3", "nef", "arw", "dng", "orf", "raf"),
    )
)
# Why something is skipped that is no image lost: what an inner link leads to lies in the folder itself.
LINK, ROUND = "a link to a folder, not followed", "a link round to a folder above it"
NO_FILE = "no regular file"
HEAD = 132  # bytes of a file that `kind` looks at
_STARTS = (
    *((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF")),
    *((b"II*\0\x10\0\0\0CR", "CR2"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF")),
    *((b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000")),
    *((b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"8BPS", "PSD"), (b"\0\0\1\0", "ICO")),
    *((b"\x76\x2f\x31\x01", "EXR"), (b"#?RADIANCE", "HDR"), (b"<svg", "SVG"), (b"icns", "ICNS"), (b"qoif", "QOI")),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "CR3", b"mif1": "HEIF", b"msf1": "HEIF"}  # ISO 14496-12 `ftyp`


@dataclass(frozen=True)
class File:
    """A file that may be an image of a class."""

    path: str
    relative: str  # to the folder that a user named, or to its training split where that is all that is read
    label: int  # position of its class
    validates: bool  # whether it belongs to a validation split that the folder came with
    stamp: tuple[int, int, int]  # bytes, mtime, ctime: ctime too, because archives unpack with one mtime for all


@dataclass(frozen=True)
class Layout:
    """What a folder holds, before a file of it is opened."""

    top: Path
    classes: tuple[str, ...]
    files: tuple[File, ...]
    skipped: tuple[str, ...]  # 'relative/path: reason'
    validation: str | None = None  # what says which images validate, in words; None: nothing does
    remarks: tuple[str, ...] = ()  # what was recognised
    warnings: tuple[str, ...] = ()
    are_named: bool = False  # whether a table names the files: where one is no image, that is told


class Walk:
    """Reads folders below a boundary. Links that lead out of it are followed on request only.

    With `skips_unreadable` a folder that cannot be read is skipped with the reason; else an OSError tells of it.
    """

    def __init__(self, boundary: str, follow_links: bool, *, skips_unreadable: bool = False) -> None:
        self._boundary, self._follow_links = os.path.realpath(boundary), follow_links
        self._skips_unreadable = skips_unreadable
        self.followed: set[str] = set()  # links that lead out
        self._hidden: set[str] = set()  # folders and files that were passed over

    def entries(self, place: str) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Entries of a folder that count, sorted, each with the reason why it must not be followed, or ''."""
        with os.scandir(place) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if entry.name.startswith("."):
                if entry.name.casefold().partition("-")[0] not in KNOWN_HIDDEN and not entry.is_symlink():
                    self._hidden.add(entry.path)
            elif entry.name.casefold() not in IGNORED:
                yield entry, self._fault(entry) if entry.is_symlink() else ""

    def _fault(self, entry: os.DirEntry[str]) -> str:
        target = os.path.realpath(entry.path)
        if not os.path.exists(target):
            return "a broken link"
        if self.inside(target):
            return ""
        if not self._follow_links:
            return "a link that leads out of the folder (follow_links = true allows it)"
        self.followed.add(entry.path)
        return ""

    def inside(self, target: str) -> bool:
        """Whether a real path lies below the boundary."""
        return os.path.commonpath((target, self._boundary)) == self._boundary

    def files(self, place: str, above: tuple[str, ...] = ()) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Files in a folder and the folders below it, each with the reason why it is skipped, or ''."""
        above = (*above, os.path.realpath(place))
        for entry, fault in self.entries(place):
            if fault:
                yield entry, fault
            elif entry.is_dir() and entry.is_symlink() and not self._follow_links:
                yield entry, LINK  # it may lead round in a circle
            elif entry.is_dir() and entry.is_symlink() and os.path.realpath(entry.path) in above:
                yield entry, ROUND
            elif entry.is_dir() and self._skips_unreadable and (why := folder_fault(entry.path)):
                yield entry, why
            elif entry.is_dir():
                yield from self.files(entry.path, above)
            else:  # a pipe or a device would be waited for
                yield entry, "" if entry.is_file() else NO_FILE

    def folders(self, place: str) -> list[str]:
        """Names of the folders in a folder."""
        return [entry.name for entry, fault in self.entries(place) if not fault and entry.is_dir()]

    def images(self, place: str) -> Iterator[str]:
        """Names of the images that lie directly in a folder."""
        for entry, fault in self.entries(place):
            if not fault and entry.is_file() and is_image(entry.path):
                yield entry.name

    def concealed(self) -> Iterator[str]:
        """Paths of hidden images, and of all files in hidden folders but KNOWN_HIDDEN, that were passed over so far."""
        for place in sorted(self._hidden):
            if os.path.isdir(place):
                walk = Walk(place, False, skips_unreadable=True)
                files = () if folder_fault(place) else walk.files(place)
                yield from (entry.path for entry, fault in files if not fault)
            elif os.path.isfile(place) and _begins_as_image(place):  # '._cat.jpg' is what macOS keeps of cat.jpg
                yield place

    def any_image(self, place: str) -> bool:
        """Whether a folder or one below it holds an image."""
        return any(not fault and is_image(entry.path) for entry, fault in self.files(place))


def folder_fault(place: str) -> str:
    """Why a folder cannot be read, or ''."""
    try:
        os.scandir(place).close()
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return ""


def role(name: str) -> str | None:
    """'train', 'val' or 'test' where the name of a folder is one of a split."""
    word = name.strip().casefold()
    if word.startswith("train"):
        return "train"
    if word.startswith("val") or word == "dev":
        return "val"
    return "test" if word.startswith(("test", "eval")) else None


def stamp(path: str) -> tuple[int, int, int]:
    """What changes when the content of a file does.

    Raises:
        OSError: there is no such file.
    """
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def kind(head: bytes) -> str | None:
    """The image format that a file begins as, readable or not; None if it is none."""
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<?xml") and b"<svg" in head:
        return "SVG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # two reserved fields: a text may begin with BM
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and head[3:4] in b"#0123456789 \n":
        return "PPM"
    if head[4:8] == b"ftyp" and (head[8:12] in _BRANDS or head[8:10] == b"he"):
        return _BRANDS.get(head[8:12], "HEIC")
    return "DICOM" if head[128:132] == b"DICM" else None


def is_image(path: str) -> bool:
    """Whether a file begins as an image, or is called one."""
    return _begins_as_image(path) or named_as_image(path)


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return kind(stream.read(HEAD)) is not None
    except OSError:
        return False


def named_as_image(path: str) -> bool:
    """Whether a file is called an image."""
    return os.path.splitext(path)[1].lower()[1:] in IMAGE_NAMES
