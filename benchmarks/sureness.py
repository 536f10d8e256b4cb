"""How much probabilities can be taken at their word: python -m benchmarks.sureness --cifar FOLDER [--seeds 3].

Networks of two data sets, with and without smoothed labels; the temperature fitted on so many of the images that
validate, drawn several times, by several rules; errors on the test images, on which nothing was fitted. Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.widening import trained
from benchmarks.workload import conditions
from objectives.data.augment import Normalisation
from objectives.data.dataset import Images, load
from objectives.data.held_out import load_test
from objectives.device.allocator import keep_freed_memory
from objectives.export import logits
from objectives.inference import calibration
from objectives.inference.calibration import expected_error
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Task
from objectives.train import Trained

CPU = torch.device("cpu")
PLAIN = Pipeline(batch_size=64, lr=0.2, epochs=6, schedule="one_cycle", label_smoothing=0.0, crop=False, depth=1)
SMOOTHINGS = (0.0, 0.1)
SIZES = (40, 100, 300, 1000, 5000)  # images that a temperature is fitted on
DRAWS = 10  # of so many images
AT_ONCE = 512


@dataclass(frozen=True)
class Told:
    """What a network says of images of which it saw none."""

    logits: Tensor  # [n, n_classes]
    y: Tensor  # [n]

    def some(self, n: int, seed: int) -> Told:
        """So many of them, drawn."""
        chosen = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))[:n]
        return Told(self.logits[chosen], self.y[chosen])

    def nll(self, temperature: float) -> Tensor:
        """[n] negative logarithms of the probability of the right class."""
        return torch.nn.functional.cross_entropy(self.logits / temperature, self.y, reduction="none")

    def error(self, temperature: float) -> float:
        """The expected calibration error."""
        return expected_error((self.logits / temperature).softmax(1), self.y)


def fitted(told: Told) -> float:
    """The likeliest temperature."""
    return calibration.likeliest(told.logits, told.y)


def guarded(told: Told) -> float:
    """The same, where it makes images that it was not fitted on likelier by more than a standard error; else 1."""
    gain, fold = torch.empty(len(told.y), dtype=torch.float64), torch.arange(len(told.y)) % calibration.FOLDS
    for number in range(calibration.FOLDS):
        inner, outer = (Told(told.logits[part], told.y[part]) for part in (fold != number, fold == number))
        gain[fold == number] = outer.nll(1.0) - outer.nll(fitted(inner))
    return fitted(told) if float(gain.mean()) > float(gain.std()) / len(gain) ** 0.5 else 1.0


def ours(told: Told) -> float:
    """The same, nearer to 1 the less speaks against 1."""
    return calibration.temperature(told.logits, told.y)


RULES: dict[str, Callable[[Told], float]] = {"fitted": fitted, "guarded": guarded, "ours": ours}


def networks(spec: DataSpec, n_seeds: int) -> Iterator[tuple[float, Told, Told]]:
    """(smoothing of its labels, what it says of the images that validate, of the test images) of each network."""
    dataset = load(spec, CPU)
    test, normalise = load_test(spec, dataset), Normalisation(dataset, CPU)
    assert test is not None
    for smoothing in SMOOTHINGS:
        pipeline = replace(PLAIN, label_smoothing=smoothing, flip=dataset.flip)
        for seed in range(n_seeds):
            _, found = trained(pipeline, Task(spec, "thin", stem_stride=2), dataset, seed)
            yield smoothing, _told(found, dataset.val, normalise), _told(found, test.images, normalise)


@torch.no_grad()
def _told(found: Trained, images: Images, normalise: Normalisation) -> Told:
    parts = [logits(found.model, x, normalise, mirrored=False) for x in torch.split(images.x, AT_ONCE)]
    return Told(torch.cat(parts).double(), images.y)


@dataclass(frozen=True)
class Found:
    """What a rule comes to on the test images."""

    temperature: float
    error: float
    nll: float

    @classmethod
    def at(cls, temperature: float, test: Told) -> Found:
        return cls(temperature, test.error(temperature), float(test.nll(temperature).mean()))


def rows(name: str, smoothing: float, pairs: Sequence[tuple[Told, Told]]) -> Iterator[str]:
    """The table of networks of one kind: every rule, for so many images."""
    accuracy = fmean(float((test.logits.argmax(1) == test.y).double().mean()) for _, test in pairs)
    kind = f"{name}, {'labels smoothed by 0.1' if smoothing else 'plain labels'} ({accuracy:.1%})"
    before = [Found.at(1.0, test) for _, test in pairs]
    best = [Found.at(fitted(test), test) for _, test in pairs]
    for rule, known in (("none", before), ("the best there is, fitted on the test images", best)):
        yield _row(kind, rule, "", known, before)
    for n in SIZES:
        for rule, choose in RULES.items():
            found, least = list[Found](), list[Found]()
            for (val, test), plain in zip(pairs, before, strict=True):
                for draw in range(DRAWS if n < len(val.y) else 1):
                    found.append(Found.at(choose(val.some(n, draw)), test))
                    least.append(plain)
            yield _row(kind, rule, str(n), found, least)


def _row(kind: str, rule: str, n: str, found: Sequence[Found], before: Sequence[Found]) -> str:
    mean = [fmean(getattr(each, name) for each in found) for name in ("temperature", "error", "nll")]
    worse = fmean(a.error > b.error + 1e-9 for a, b in zip(found, before, strict=True))
    cells = (kind, rule, n, f"{mean[0]:.2f}", f"{100 * mean[1]:.1f}", f"{worse:.0%}", f"{mean[2]:.4f}")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains the networks, and tells what each rule makes of them."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sureness", description=__doc__.partition("\n")[0])
    parser.add_argument("--cifar", required=True, help="a folder of CIFAR-10 as JPEG files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n-train", type=int, default=5_000)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(conditions(CPU, f"python -m benchmarks.sureness {shlex.join(words)}"))
    print("\n| networks | temperature | from images | mean | error, points | worse than none | NLL |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, data in (("Fashion-MNIST", "fashion_mnist"), ("CIFAR-10 (JPEG)", f"folder:{options.cifar}")):
        kinds: dict[float, list[tuple[Told, Told]]] = {}
        for smoothing, val, test in networks(DataSpec(data, n_train=options.n_train), options.seeds):
            kinds.setdefault(smoothing, []).append((val, test))
        for smoothing, pairs in kinds.items():
            print("\n".join(rows(name, smoothing, pairs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
