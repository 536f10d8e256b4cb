"""Contenders of `benchmarks.ten_minutes`: python -m benchmarks.contenders NAME --shown FOLDER --hidden FOLDER.

Each is what a practitioner would write for a folder of small images with that library, and watches its own budget: CPU
seconds since the process began, imports and decoding included. When it is ready it is asked for the classes of
images that it has not seen; that is off its clock. Prints one JSON object. `exported`, `alone` and `both` read one of
our networks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.contenders.job import Job, Ready
from benchmarks.folders import images

CONTENDERS = {  # module and function: a contender pays for the import of its own library only
    "optuna": ("optuna_script", "with_optuna"),
    "fastai": ("fastai_script", "with_fastai"),
    "hog-svm": ("support_vectors", "on_hog"),
    "pixel-svm": ("support_vectors", "on_pixels"),
    "exported": ("exported", "exported"),
    "alone": ("exported", "alone"),
    "both": ("exported", "both"),
}


def main() -> None:
    """Plays one contender."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.contenders", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("name", choices=CONTENDERS)
    p.add_argument("--shown", type=Path, required=True, help="holds train/CLASS; of exported: the network")
    p.add_argument("--hidden", type=Path, required=True, help="holds CLASS: images to be told the class of")
    p.add_argument("--seconds", type=float, default=math.inf, help="CPU seconds, from the start of this process on")
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    module, function = CONTENDERS[options.name]
    play = getattr(import_module(f"benchmarks.contenders.{module}"), function)
    ready: Ready = play(Job(options.shown, options.seconds, options.seed))
    took, at = time.process_time(), time.monotonic()
    files = images(options.hidden)
    right = [name == file.parent.name for name, file in zip(ready.predict(files), files, strict=True)]
    result = {
        **{"accuracy": sum(right) / len(right), "n_test": len(right), "told": ready.told, "about": ready.about},
        **{"cpu_seconds": took, "ready_at": at, "predict_seconds": time.process_time() - took, "curve": ready.curve},
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
