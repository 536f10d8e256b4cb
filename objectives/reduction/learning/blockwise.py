"""The parts of a network around a cut learn to put out again what they put out before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from objectives.device.clock import Clock
from objectives.networks.network import Network
from objectives.reduction.terms import Terms
from objectives.task import Seeds

IMAGES = 2000  # of the training images, by which the parts learn, at most
CACHED = 256 << 20  # bytes of what they read and what they are to put out, at most
PASSES = 4  # over them, for an epoch of full retraining
LR = 1e-3  # of Adam
TINY = 1e-12  # of a target's mean square: a dead part has nothing to be taught


def taught(model: Network, before: Network, axis: str, terms: Terms, seeds: Seeds, clock: Clock) -> Network:
    """The network whose parts around a cut axis learned towards the activations of the network before the cut.

    Those parts are all that produce or read the axis, and what lies between: both paths of a residual block, two layers
    of a plain network, a whole stage where its axis was cut. What they read and what they are to put out is computed
    once; the loss is the mean square of the difference over that of the target. Trained in place, in fp32, without
    augmentation. All of it is charged.
    """
    torch.manual_seed(seeds.augmentation)  # for networks that draw while they train
    with clock.span("steps"):
        places = around(model, axis)
        x, target = _cached(before, places, terms, seeds.init)
        parts = [compute for _, compute in model.parts()[places.start : places.stop]]
        modules = [model.get_submodule(name) for name, _ in model.parts()[places.start : places.stop]]
        parameters = [parameter for module in modules for parameter in module.parameters()]
        optimizer = torch.optim.Adam(parameters, LR)
        scale = target.square().mean().clamp(min=TINY)
        generator = torch.Generator(x.device).manual_seed(seeds.order)
        batch_size = min(terms.pipeline.batch_size, len(x))
        for module in modules:
            module.train()
        for _ in range(PASSES * terms.settings.epochs):
            order = torch.randperm(len(x), generator=generator, device=x.device)
            for start in range(0, len(x) - batch_size + 1, batch_size):
                some = order[start : start + batch_size]
                loss = (_through(parts, x[some]) - target[some]).square().mean() / scale
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return model.eval()


def around(model: Network, axis: str) -> range:
    """The parts of a network, by position, from the first to the last that has a tensor on an axis."""
    on = [name for name, ends in model.axes().items() if axis in ends]
    names = [name for name, _ in model.parts()]
    places = [place for place, part in enumerate(names) if any(name.startswith(f"{part}.") for name in on)]
    return range(places[0], places[-1] + 1)


@torch.no_grad()
def _cached(before: Network, places: range, terms: Terms, seed: int) -> tuple[Tensor, Tensor]:
    """(what the parts read, what they put out) in a network, for training images drawn by `seed`."""
    images = terms.dataset.train
    parts = [compute for _, compute in before.eval().parts()]
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(images.y))[:IMAGES]).to(terms.device)
    read: list[Tensor] = []
    put_out: list[Tensor] = []
    n_bytes = 0
    for some in torch.split(chosen, terms.pipeline.batch_size):
        read.append(_through(parts[: places.start], terms.normalise(images.x[some])))
        put_out.append(_through(parts[places.start : places.stop], read[-1]))
        n_bytes += 4 * (read[-1].numel() + put_out[-1].numel())
        if n_bytes > CACHED:
            break
    return torch.cat(read), torch.cat(put_out)


def _through(parts: list[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    return x
