"""Copies a network of a front to a place of choice: frontrunner export --study NAME --under-seconds 60 -o FOLDER."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from objectives.errors import DataError
from objectives.words import expanded, printable
from search.commands.exits import exit_code
from search.database import storage
from search.errors import UsageError
from search.study.networks import Networks

if TYPE_CHECKING:
    from objectives.inference.copying import Copied
    from search.study.snapshot import Snapshot

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def perform(options: argparse.Namespace) -> int:
    """Copies the network; 0, 2 usage, 3 a damaged network, 4 storage or no space, 130 interrupted."""
    url = storage.url(options.storage, None)
    return exit_code(lambda: _export(options, url), url)


def _export(options: argparse.Namespace, url: str) -> int:
    from search.commands.networks import best

    target = _target(options.output)
    if options.onnx and (missing := [name for name in NEEDED if find_spec(name) is None]):
        raise UsageError(f"--onnx needs the Python packages {', '.join(missing)}: pip install 'frontrunner[onnx]'")
    now = best.read(options.study, url)
    which, source = _of_all(now) if options.whole else _of_trial(now, options)
    spec = replace(now.spec.task.data, root=options.data_root or now.spec.task.data.root)

    from objectives.inference import interchange
    from objectives.inference.copying import copied

    wanted = {interchange.TORCHSCRIPT: options.torchscript, interchange.ONNX: options.onnx}
    try:
        done = copied(source, target, spec, [name for name, is_wanted in wanted.items() if is_wanted])
    except ValueError as error:
        raise DataError(printable(str(error))) from error
    _say(done, which, whole=options.whole, as_json=options.json)
    return 0


def _say(done: Copied, number: int, *, whole: bool, as_json: bool) -> None:
    if done.made_up is not None:
        print(printable(f"warning: checked on made-up images only: {done.made_up}"), file=sys.stderr)
    if as_json:
        told = {
            "trial": number,
            "whole": whole,
            "folder": str(done.folder),
            "files": done.files,
            "checked": done.n_checked,
        }
        print(json.dumps({**told, "real_images": done.made_up is None}))
        return
    same = f"tells the same of {done.n_checked} {'real' if done.made_up is None else 'made-up'} images"
    what = f"trial {number}, trained on all images," if whole else f"trial {number}"
    print(printable(f"{what} is in {done.folder}: {', '.join(done.files)}; it {same}"))


def _target(output: str) -> Path:
    """The folder to make.

    Raises:
        UsageError: it is there already, or has no place to be.
    """
    target = Path(expanded(output)).absolute()
    if target.exists() or target.is_symlink():
        raise UsageError(printable(f"{output} is there already: name a folder to make with -o"))
    if not target.parent.is_dir():
        raise UsageError(printable(f"there is no folder {target.parent}: make it, or name another place with -o"))
    return target


def _of_trial(now: Snapshot, options: argparse.Namespace) -> tuple[int, Path]:
    """(trial, folder) of the network of the front that is asked for.

    Raises:
        UsageError: there is none such, here.
    """
    from search.commands.networks import best

    number = best.asked(now, options).best.trial if options.trial is None else _of_front(now, options.trial)
    if (source := now.network(number)) is None:
        raise UsageError(f"the network of trial {number} is not on this machine: export it where it was trained")
    return number, source


def _of_all(now: Snapshot) -> tuple[int, Path]:
    """(trial that has its pipeline, folder) of the network that was trained on all images.

    Raises:
        UsageError: there is none, here.
    """
    from search.views import choice

    if (number := choice.of_all(now)) is None:
        raise UsageError(
            f"study {now.name!r} has no network here that was trained on all images: run it with --minutes, or "
            "train --whole trains a point of its front so"
        )
    return number, Networks(now.artifacts.absolute()).refit


def _of_front(now: Snapshot, number: int) -> int:
    """The trial, if it is on the front.

    Raises:
        UsageError: it is not.
    """
    numbers = [trial.number for trial in now.front_trials]
    if number not in numbers:
        known = ", ".join(map(str, numbers)) or "none yet"
        raise UsageError(f"trial {number} is not on the front of {now.name!r}, whose networks are kept: {known}")
    return number
