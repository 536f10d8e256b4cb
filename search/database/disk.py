"""Bytes on the disk: what a study takes, what is left."""

from __future__ import annotations

import shutil
from pathlib import Path

from search.database import file, storage


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def database_bytes(storage_url: str) -> int | None:
    """Bytes of an SQLite database with what belongs to it; None for a server's."""
    path = storage.sqlite_path(storage_url)
    if path is None:
        return None
    files = [path.with_name(f"{path.name}{end}") for end in ("", *file.BESIDE)]
    return sum(each.stat().st_size for each in files if each.is_file())


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def words(n_bytes: int | None) -> str:
    """Bytes as a person says them."""
    if n_bytes is None:
        return "on a server"
    size = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
