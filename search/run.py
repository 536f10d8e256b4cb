"""Finds the Pareto front of training time against accuracy: python -m search.run --study NAME.

The same command continues a study that was interrupted, and says so when it is complete.
"""

from __future__ import annotations

from search.host.interruptions import end_quietly

if __name__ == "__main__":
    end_quietly()  # while all the rest is loaded

import argparse
import sys
from typing import TYPE_CHECKING

from search.commands.line import MOST_TRIALS, Parser, seconds, whole
from search.host.called import command
from search.host.owner import age
from search.host.streams import guarded

if TYPE_CHECKING:
    from search.workers.seam import Training

OK = 0


DATA_HELP = "digits, fashion_mnist, cifar10, cifar100, folder:PATH or series:FILE.npz"
SAMPLERS, STOPPING = ("pareto", "tpe", "nsga2", "gp", "random"), ("front", "value", "halving", "none")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(prog=command("run"), description=__doc__.split("\n\n")[0])
    p.epilog = f"example: {command('run')} --data folder:birds --minutes 10"
    total = add_study(p, required=False)
    words = "M minutes for everything; with --data it needs no study, which is then planned"
    total.add_argument("--minutes", type=seconds, metavar="M", help=words)
    p.add_argument("--sampler", choices=SAMPLERS, help="how pipelines are proposed (default: pareto)")
    p.add_argument("--stopping", choices=STOPPING, help="how hopeless trials are stopped (default: front)")
    add_words(p)
    p.set_defaults(age=None)
    return p


def add_study(p: argparse.ArgumentParser, *, required: bool = True) -> argparse._MutuallyExclusiveGroup:
    """The flags that say which study is meant, where it trains, and until when. Returns those of its total."""
    p.add_argument(
        "--study", "--study-name", required=required, metavar="STUDY", help="studies/STUDY.toml, a built-in one, a file"
    )
    p.add_argument("--as", dest="as_name", metavar="NEWNAME", help="run it as a study of this name")
    add_places(p)
    p.add_argument("--n-train", type=whole(10**9), metavar="N", help="training images to use")
    add_start(p)
    p.add_argument("--mixed-devices", action="store_true", help="mix the seconds of different device models")
    total = p.add_mutually_exclusive_group()
    total.add_argument("--n-trials", type=whole(MOST_TRIALS), metavar="N", help="the study's total, anchors included")
    total.add_argument("--add", type=whole(MOST_TRIALS), metavar="N", help="N trials more than the study has")
    p.add_argument("--timeout", type=seconds, metavar="SECONDS", help="end this invocation after so long")
    p.add_argument("--seed", type=whole(2**32 - 1, least=0), metavar="N", help="of split, weights, order, sampler")
    return total


def add_start(p: argparse.ArgumentParser) -> None:
    """The flag that says what trainings may begin from."""
    words = "that pipelines may begin from: an exported network, a file of weights, torchvision:resnet18"
    p.add_argument("--start", metavar="DIR", help=words)


def add_places(p: argparse.ArgumentParser, *, data: bool = True) -> None:
    """The flags that say where data and study lie and where a command trains."""
    if data:
        p.add_argument("--data", metavar="DATA", help=DATA_HELP)
    p.add_argument(
        "--labels", metavar="FILE.csv", help="names the classes of a folder: columns file, label, perhaps split"
    )
    p.add_argument("--data-root", metavar="DIR", help="where to look for data sets first")
    p.add_argument(
        "--device",
        "--devices",
        default="auto",
        metavar="DEVICE",
        help="cpu, cpu:2 (two workers), cuda, cuda:1, 0,1 (default: a GPU if there is one)",
    )
    p.add_argument(
        "--workers",
        type=whole(10**6),
        metavar="N",
        help="workers of the study on this host, in all its runs (default: of this run); on a cluster: of this run",
    )
    p.add_argument(
        "--cluster",
        metavar="RAY",
        help="train on a Ray cluster, --workers of it: ray (on this machine), ray://HOST:PORT",
    )
    p.add_argument("--in-process", action="store_true", help="train in this process, for debugging")
    p.add_argument("--storage", metavar="URL", help="default: OPTUNA_STORAGE, then sqlite:///studies/optuna.db")


def add_words(p: argparse.ArgumentParser) -> None:
    """The flags that say what a command prints."""
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    loudness = p.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="show every epoch as a line")
    loudness.add_argument("-q", "--quiet", action="store_true", help="show the result only")


@guarded
def main(arguments: list[str] | None = None, training: Training | None = None) -> int:
    """Runs a study; the exit code: 0 done, 2 usage, 3 data, 4 storage, 5 device, 130 interrupted.

    `training` is what the study trains with; networks on a device unless another is given.
    """
    end_quietly()
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    options.words = words
    if arguments is not None:  # called by a program of its own age
        options.age = 0.0
    return perform(options, training)


def perform(options: argparse.Namespace, training: Training | None = None) -> int:
    """Runs the study that was asked for; the exit code, as of `main`."""
    from search import session
    from search.commands.exits import exit_code
    from search.database import storage
    from search.invocation import Invocation
    from search.workers.seam import preparation

    if options.age is None:
        options.age = age()

    def run() -> int:
        session.run(Invocation(**vars(options)), training or preparation)
        return OK

    return exit_code(run, storage.url(options.storage, None))


if __name__ == "__main__":
    sys.exit(main())
