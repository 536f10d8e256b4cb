"""The exported networks of a study: a folder each, for the trials that are kept."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from objectives.host.durable import PARTIAL

STALE = timedelta(hours=1)  # which no export takes


@dataclass(frozen=True)
class Networks:
    """The folder of a study's networks."""

    folder: Path

    def of(self, trial_number: int) -> Path:
        """The folder of a trial's network; it exists for trials on the front."""
        return self.folder / f"trial-{trial_number:05d}"

    @property
    def base(self) -> Path:
        """The folder of the network that the study makes smaller."""
        return self.folder / "base"

    @property
    def refit(self) -> Path:
        """The folder of the network that was trained on all images."""
        return self.folder / "refit"

    def strays(self, kept: Collection[int]) -> list[Path]:
        """Networks of trials that are not kept, and what an interrupted export left."""
        names = {self.of(number).name for number in kept}
        folders = [*self.folder.glob("trial-*"), *self.folder.glob(f".trial-*{PARTIAL}")]
        others = [part for each in (self.base, self.refit) for part in self.folder.glob(f".{each.name}.*{PARTIAL}")]
        folders += filter(_is_stale, others)  # these are written while others may collect
        return [folder for folder in folders if folder.name not in names and folder.is_dir()]

    def remove(self, trial_number: int) -> None:
        """Removes a trial's network, where there is one."""
        shutil.rmtree(self.of(trial_number), ignore_errors=True)

    def collect(self, kept: Collection[int]) -> None:
        """Removes the strays."""
        for folder in self.strays(kept):
            shutil.rmtree(folder, ignore_errors=True)


def _is_stale(folder: Path) -> bool:
    try:
        return datetime.now() - datetime.fromtimestamp(folder.stat().st_mtime) > STALE
    except FileNotFoundError:
        return False
