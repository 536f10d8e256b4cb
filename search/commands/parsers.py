"""The command line of every command. Here, apart from what the commands do, so that `--help` and completion load
nothing but the standard library.

What completion offers for a value follows from its choices or its metavar: see `search.commands.completion`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from search import run
from search.commands.line import COMMAND, MOST_TRIALS, Parser, number, seconds, whole
from search.host.called import command

MOST_SEEDS = 20
# As `objectives.reduction.settings` has them.
CRITERIA = ("taylor", "taylor_sum", "activation", "l1_own", "l1_next", "l1_both", "similarity", "random")
RETRAINING, NUMBER_FORMATS = ("full", "blocks"), ("fp32", "tf32", "bf16", "fp16")
QUANTISED = ("affine", "shared")
# as `networks.families.ALL`
FAMILIES = ("small", "thin", "wide", "fast", "imagenet18", "imagenet34", "lenet300", "lenet5", "vgg", "cnn1d")


@dataclass(frozen=True)
class Command:
    """One command of the program."""

    module: str  # has perform(options) -> exit code
    what: str  # it does, in a line
    parser: Callable[[], argparse.ArgumentParser]


def _confirm() -> argparse.ArgumentParser:
    p = _of("confirm", "confirm --study birds --seeds 3")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    words = f"fresh seeds for each point, 1 to {MOST_SEEDS} (default: 3)"
    p.add_argument("--seeds", type=whole(MOST_SEEDS), default=3, metavar="N", help=words)
    run.add_places(p)
    run.add_words(p)
    return p


def _ablate() -> argparse.ArgumentParser:
    p = _of("ablate", "ablate --study birds --trial 24 --seeds 3 --minutes 10")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    p.add_argument("--trial", type=whole(MOST_TRIALS, least=0), required=True, metavar="N", help="of its front, say")
    words = f"rounds, each of seeds of its own, 1 to {MOST_SEEDS} (default: 3)"
    p.add_argument("--seeds", type=whole(MOST_SEEDS), default=3, metavar="N", help=words)
    words = "that all of it may take: what does not fit is left for the same command again"
    p.add_argument("--minutes", type=seconds, metavar="M", help=words)
    p.add_argument("-o", "--output", metavar="FILE.html", help="the page (default: NAME-trial-N.html)")
    run.add_places(p)
    run.add_words(p)
    return p


def _plan() -> argparse.ArgumentParser:
    p = _of("plan", "plan birds --minutes 10")
    p.add_argument(
        "folder", metavar="FOLDER", help="of images; or digits, fashion_mnist, cifar10, cifar100, folder:PATH"
    )
    p.add_argument("--minutes", type=seconds, required=True, metavar="M", help="that all of it may take")
    p.add_argument("--as", dest="as_name", metavar="NAME", help="of the study (default: after the folder)")
    p.add_argument("--n-train", type=whole(10**9), metavar="N", help="training images to use")
    run.add_start(p)
    p.add_argument("--seed", type=whole(2**32 - 1, least=0), metavar="N", help="of split, weights, order, sampler")
    run.add_places(p, data=False)
    run.add_words(p)
    return p


def _record() -> argparse.ArgumentParser:
    p = _of("record", "record --study birds --n-trials 400")
    run.add_study(p)
    run.add_words(p)
    return p


def _simulate() -> argparse.ArgumentParser:
    p = _of("simulate", "simulate --study birds-record --sampler tpe --seeds 20")
    p.add_argument("--study", required=True, metavar="NAME", help="a recorded study, by its name in the database")
    _storage(p)
    p.add_argument("--model", choices=("trees", "process"), default="trees", help="of the table (default: trees)")
    p.add_argument("--sampler", choices=run.SAMPLERS, default="pareto", help="default: pareto")
    p.add_argument("--stopping", choices=run.STOPPING, default="front", help="default: front")
    words = "simulated, a study (default: a tenth of the table's, at least three times those of known pipelines)"
    p.add_argument("--seconds", type=seconds, metavar="S", help=words)
    p.add_argument("--seeds", type=whole(MOST_SEEDS), default=5, metavar="N", help="studies, 1 to 20 (default: 5)")
    words = "decades of error between seeds, 0 to 2 (default: 0.04)"
    p.add_argument("--spread", type=number(2), default=0.04, metavar="D", help=words)
    return p


def _data() -> argparse.ArgumentParser:
    p = _of("data", "data birds --size 64 --html birds.html")
    p.add_argument("data", metavar="FOLDER", help="a folder of images, digits, fashion_mnist, cifar10 or cifar100")
    p.add_argument("--labels", metavar="FILE.csv", help="names the classes: columns file, label, perhaps split")
    p.add_argument("--data-root", metavar="DIR", help="where to look for data sets first")
    words = "decode images as squares of N pixels, 4 to 1024 (default: what their sizes suggest)"
    p.add_argument("--size", type=whole(1024, least=4), metavar="N", help=words)
    p.add_argument("--json", action="store_true", help="print the card as one JSON object")
    p.add_argument("--html", metavar="FILE", help="write it as a page with pictures, too")
    return p


def _best() -> argparse.ArgumentParser:
    p = _of("best", "best --study birds --under-seconds 60 --within 0.5")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    _limits(p)
    words = "P points less accurate is as good, where it costs less"
    p.add_argument("--within", type=number(100), default=0.0, metavar="P", help=words)
    _storage(p)
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


def _limits(p: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """The flags that say which point of a front is meant; without one the most accurate."""
    limit = p.add_mutually_exclusive_group()
    limit.add_argument("--under-seconds", type=seconds, metavar="S", help="the most accurate that trains in S seconds")
    words = "of networks made smaller: the most accurate of at most M million FLOPs an inference"
    limit.add_argument("--under-mflop", type=seconds, metavar="M", help=words)
    words = "the cheapest of at least this accuracy, in [0, 1]"
    limit.add_argument("--min-accuracy", type=number(1), metavar="A", help=words)
    return limit


def _predict() -> argparse.ArgumentParser:
    p = _of("predict", "predict --model studies/artifacts/birds/trial-00004 --images new/ -o predictions.csv")
    _model(p)
    words = "image files, or folders of them"
    p.add_argument("--images", required=True, nargs="+", action="extend", metavar="PATH", help=words)
    words = "table to write: id, label, probability, margin, the next two classes, why there is none (default: printed)"
    p.add_argument("-o", "--output", default="-", metavar="FILE.csv", help=words)
    words = "what the images show, to compare with: columns file, label"
    p.add_argument("--labels", metavar="FILE.csv", help=words)
    p.add_argument("--follow-links", action="store_true", help="also links that lead out of a folder")
    p.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return p


def _test() -> argparse.ArgumentParser:
    p = _of("test", "test --model studies/artifacts/birds/trial-00004 --data folder:birds")
    _model(p)
    p.add_argument("--data", required=True, metavar="FOLDER", help="labelled images: a folder, digits, cifar10, ...")
    words = "which of them: what the network was validated by, or all (default: test, all where there is none)"
    p.add_argument("--split", choices=("test", "validation", "all"), help=words)
    p.add_argument("--labels", metavar="FILE.csv", help="names the classes of a folder: columns file, label")
    p.add_argument("--data-root", metavar="DIR", help="where to look for data sets first")
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


def _export() -> argparse.ArgumentParser:
    p = _of("export", "export --study birds --under-seconds 60 -o birds-network --torchscript")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    limits = _limits(p)
    limits.add_argument("--trial", type=whole(MOST_TRIALS, least=0), metavar="N", help="this one of the front")
    words = "that which --minutes trained on all images, those that validate included"
    limits.add_argument("--whole", action="store_true", help=words)
    p.add_argument("-o", "--output", required=True, metavar="FOLDER", help="to make, which is not there yet")
    words = "also as TorchScript: pixels in, calibrated probabilities out"
    p.add_argument("--torchscript", action="store_true", help=words)
    p.add_argument("--onnx", action="store_true", help="likewise as ONNX")
    p.add_argument("--data-root", metavar="DIR", help="where the images are that it is checked on")
    _storage(p)
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


def _train() -> argparse.ArgumentParser:
    example = "train --pipeline studies/artifacts/birds/trial-00004 --data folder:birds -o birds-anew --seeds 3"
    p = _of("train", example)
    source = p.add_mutually_exclusive_group(required=True)
    words = "the folder of an exported network, or a TOML or JSON file of a pipeline"
    source.add_argument("--pipeline", metavar="PATH", help=words)
    source.add_argument("--study", metavar="NAME", help="or a point of its front: its name in the database")
    _limits(p).add_argument("--trial", type=whole(MOST_TRIALS, least=0), metavar="N", help="this one of the study")
    words = "to train on: a folder, digits, fashion_mnist, ... (default: that of the study)"
    p.add_argument("--data", metavar="FOLDER", help=words)
    p.add_argument("-o", "--output", required=True, metavar="DIR", help="the network; of several, a folder for each")
    words = f"trainings to measure it by, 0 to {MOST_SEEDS} (default: 1)"
    p.add_argument("--seeds", type=whole(MOST_SEEDS, least=0), default=1, metavar="K", help=words)
    words = "then once more, on all images, those that validate included"
    p.add_argument("--whole", action="store_true", help=words)
    words = "that the pipeline begins from: an exported network, a file of weights (default: as it says)"
    p.add_argument("--start", metavar="DIR", help=words)
    p.add_argument("--family", choices=FAMILIES, help="of networks (default: that of the pipeline)")
    words = "side of the images, 4 to 1024 pixels (default: that of the pipeline)"
    p.add_argument("--size", type=whole(1024, least=4), metavar="N", help=words)
    p.add_argument("--channels", type=whole(3), metavar="N", help="1 grey, 3 colour (default: what the images have)")
    p.add_argument(
        "--n-train", type=whole(10**9), metavar="N", help="training images to use (default: as the study, or all)"
    )
    words = "names the classes of a folder: columns file, label, perhaps split"
    p.add_argument("--labels", metavar="FILE.csv", help=words)
    p.add_argument("--data-root", metavar="DIR", help="where to look for data sets first")
    p.add_argument("--seed", type=whole(2**32 - 1, least=0), default=0, metavar="N", help="that all seeds derive from")
    words = "cpu, cuda, cuda:1 (default: a GPU if there is one)"
    p.add_argument("--device", default="auto", metavar="DEVICE", help=words)
    p.add_argument("--in-process", action="store_true", help="train in this process, for debugging")
    _storage(p)
    run.add_words(p)
    return p


def _cache() -> argparse.ArgumentParser:
    p = _of("cache", "cache clear --older-than 30")
    commands = p.add_subparsers(dest=COMMAND, required=True)
    show = commands.add_parser("show", help="what lies there, of which folder, and when it was used last")
    clear = commands.add_parser("clear", help="remove decoded images: they are decoded anew when needed")
    clear.add_argument("--older-than", type=whole(10**5, least=0), metavar="DAYS", help="only what was not used since")
    for each in (show, clear):
        each.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


def _reduce() -> argparse.ArgumentParser:
    p = _of("reduce", "reduce --model studies/artifacts/birds/trial-00004 --data folder:birds -o small --epsilon 1")
    p.add_argument("--model", required=True, metavar="DIR", help="a network as it was exported")
    p.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="that it was trained on: a folder, digits, fashion_mnist, cifar10 or cifar100",
    )
    p.add_argument("-o", "--output", required=True, metavar="DIR", help="the smaller network; its journal lies beside")
    p.add_argument(
        "--epsilon",
        type=number(100, above=0),
        default=0.5,
        metavar="POINTS",
        help="of validation accuracy that may be lost, in percentage points (default: 0.5)",
    )
    p.add_argument("--budget-minutes", type=seconds, metavar="M", help="that all of it may take")
    words = "which channels go first (default: taylor)"
    p.add_argument("--criterion", choices=CRITERIA, default="taylor", help=words)
    p.add_argument("--beta", type=number(1000), default=1.0, metavar="X", help="weight of parameters (default: 1)")
    p.add_argument("--gamma", type=number(1000), default=1.0, metavar="X", help="weight of FLOPs (default: 1)")
    words = "the whole network, or block by block (default: full)"
    p.add_argument("--retraining", choices=RETRAINING, default="full", help=words)
    words = "of retraining after each cut (default: 5)"
    p.add_argument("--epochs", type=whole(1000, least=0), default=5, metavar="N", help=words)
    words = "attempts in all (default: until nothing is left to try)"
    p.add_argument("--iterations", type=whole(10**6), metavar="N", help=words)
    p.add_argument("--inputs", action="store_true", help="inputs of a dense first layer may go as well")
    words = "to retrain in (default: that of its training)"
    p.add_argument("--number-format", choices=NUMBER_FORMATS, help=words)
    words = "the result in 8 bits a weight, or few shared values and Huffman's code, beside it"
    p.add_argument("--quantise", choices=QUANTISED, help=words)
    words = "names the classes of a folder: columns file, label, perhaps split"
    p.add_argument("--labels", metavar="FILE.csv", help=words)
    p.add_argument("--data-root", metavar="DIR", help="where to look for data sets first")
    p.add_argument("--n-train", type=whole(10**9), metavar="N", help="training images to use, as in its training")
    p.add_argument("--seed", type=whole(2**32 - 1, least=0), default=0, metavar="N", help="of split and order: its own")
    words = "cpu, cuda, cuda:1 (default: a GPU if there is one); cpu:2, 0,1: attempts side by side, the same result"
    p.add_argument("--device", default="auto", metavar="DEVICE", help=words)
    p.add_argument("--threads", type=whole(10**4), default=1, metavar="N", help="of a CPU (default: 1), each")
    p.add_argument("--test", action="store_true", help="open the test split for both networks, in the end")
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    p.add_argument("-q", "--quiet", action="store_true", help="show the result only")
    return p


def _studies() -> argparse.ArgumentParser:
    p = _of("studies", "studies show birds")
    _storage(p)
    commands = p.add_subparsers(dest=COMMAND, required=True)
    commands.add_parser("list", help="all studies of the database, a line each")
    commands.add_parser("files", help="the study files that have a name: yours and the built-in ones")
    commands.add_parser("show", help="the front of a study").add_argument("study", metavar="NAME")
    rename = commands.add_parser("rename", help="give a study another name")
    rename.add_argument("study", metavar="NAME")
    rename.add_argument("new_name", metavar="NEWNAME")
    delete = commands.add_parser("delete", help="remove a study with its trials and networks")
    delete.add_argument("study", metavar="NAME")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("disk", help="what takes how much space")
    clean = commands.add_parser("clean", help="remove files that nothing names any more")
    clean.add_argument("--cache", action="store_true", help="decoded images, too: they are decoded anew when needed")
    for each in commands.choices.values():
        _storage(each, default=argparse.SUPPRESS)  # there as well; what stands before it counts where this is not given
    return p


def _doctor() -> argparse.ArgumentParser:
    p = _of("doctor", "doctor --study birds --fix")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    _storage(p)
    p.add_argument("--fix", action="store_true", help="mend what can be mended")
    return p


def _dashboard() -> argparse.ArgumentParser:
    p = _of("dashboard", "dashboard --study birds")
    p.add_argument("--study", required=True, metavar="NAME", help="the study to open")
    _storage(p)
    p.add_argument(
        "--port", type=whole(65535, least=0), default=8080, metavar="N", help="0: any free one (default: 8080)"
    )
    return p


def _report() -> argparse.ArgumentParser:
    p = _of("report", "report --study birds -o birds.html")
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    _storage(p)
    p.add_argument("-o", "--output", metavar="FILE.html", help="the page (default: NAME.html)")
    words = "show what networks of the front get wrong as well: reads the data, needs torch"
    p.add_argument("--images", action="store_true", help=words)
    p.add_argument("--json", action="store_true", help="print where it is, and what it says, as one JSON object")
    return p


def _compare() -> argparse.ArgumentParser:
    p = _of("compare", "compare birds birds-wide -o birds.html")
    words = "a study, by its name in the database, or a database: FILE.db, FILE.db:NAME"
    p.add_argument("a", metavar="NAME", help=words)
    p.add_argument("b", metavar="OTHER", help="likewise")
    _storage(p)
    words = "also where data, validation images or devices differ, which the front cannot be blamed for"
    p.add_argument("--anyway", action="store_true", help=words)
    p.add_argument("-o", "--output", metavar="FILE.html", help="write it as a page, too, that needs no network")
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


def _completion() -> argparse.ArgumentParser:
    p = _of("completion", "completion bash")
    p.add_argument("shell", choices=("bash",), help="whose script is printed")
    return p


def _of(name: str, example: str) -> argparse.ArgumentParser:
    """The parser of a command, with an example of its use."""
    return Parser(prog=command(name), description=COMMANDS[name].what, epilog=f"example: {command(example)}")


def _model(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", required=True, metavar="DIR", help="an exported network: `best` says where")
    words = "cpu, cuda, cuda:1 (default: a GPU if there is one)"
    p.add_argument("--device", default="auto", metavar="DEVICE", help=words)


def _storage(p: argparse.ArgumentParser, default: str | None = None) -> None:
    words = "default: OPTUNA_STORAGE, then sqlite:///studies/optuna.db"
    p.add_argument("--storage", metavar="URL", default=default, help=words)


COMMANDS = {
    "run": Command(
        "search.run", "run or resume a study: the Pareto front of training time against accuracy", run.parser
    ),
    "confirm": Command(
        "search.commands.confirm", "train a front again with fresh seeds, then open the test split", _confirm
    ),
    "ablate": Command(
        "search.commands.fronts.ablate", "switch off each ingredient of a point in turn: seconds and points", _ablate
    ),
    "best": Command("search.commands.networks.best", "say which network of a front to take, and where it lies", _best),
    "predict": Command("search.commands.networks.predict", "tell what images show, with an exported network", _predict),
    "test": Command("search.commands.networks.test", "say how good an exported network is on labelled images", _test),
    "export": Command("search.commands.networks.export", "copy a network of a front to a place of choice", _export),
    "train": Command(
        "search.commands.networks.train", "train a pipeline anew, on images of choice, with fresh seeds", _train
    ),
    "data": Command("search.commands.data", "show what a data set holds, before anything is trained", _data),
    "cache": Command("search.commands.cache", "show and clear the decoded images that are kept", _cache),
    "plan": Command("search.commands.plan", "choose a study for a folder and minutes, and write its file", _plan),
    "reduce": Command(
        "search.commands.networks.reduce",
        "make a trained network smaller, within an accuracy that may be lost",
        _reduce,
    ),
    "record": Command(
        "search.commands.record", "record random trainings of a study's space, to simulate searches in", _record
    ),
    "simulate": Command("search.commands.simulate", "search in a recorded table, in no time", _simulate),
    "studies": Command(
        "search.commands.studies", "list, show, rename, delete studies; study files; disk space", _studies
    ),
    "report": Command(
        "search.commands.fronts.report", "write a study as one page: its front, what it cost, and why", _report
    ),
    "compare": Command(
        "search.commands.fronts.compare", "set two fronts beside each other: which differences are sure", _compare
    ),
    "doctor": Command("search.commands.doctor", "look for what is wrong around a study, and mend it", _doctor),
    "dashboard": Command("search.commands.dashboard", "show a read-only copy of studies in a browser", _dashboard),
    "completion": Command(
        "search.commands.completion",
        'complete commands with TAB: eval "$(frontrunner completion bash)" in ~/.bashrc',
        _completion,
    ),
}
