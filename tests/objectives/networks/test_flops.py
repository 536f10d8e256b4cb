"""Laws of FLOPs: PyTorch's counter against a formula written from the definition of a convolution."""

from __future__ import annotations

from math import ceil

import pytest

from objectives.networks.architecture import Architecture, Downsampling, Stage, build
from objectives.networks.flops import count
from objectives.work import image_flops
from tests.objectives.networks.factorised import with_factors

ARCHITECTURES = {
    "small": build("small", depth=1, width=1.0, in_channels=1, n_classes=10),
    "small, stem stride 2": build("small", depth=2, width=0.5, in_channels=1, n_classes=10, stem_stride=2),
    "ResNet-20": build("thin", depth=3, width=1.0, in_channels=3, n_classes=100),
    "wide": build("wide", depth=1, width=0.25, in_channels=3, n_classes=10),
    "fast": build("fast", depth=2, width=0.25, in_channels=3, n_classes=10),
    "Haar stem": Architecture(3, 10, (Stage(5, ()), Stage(7, (2, 9))), stem="haar"),
    "pool with a branch": Architecture(1, 10, (Stage(5, (3,)), Stage(7, (2, 9))), stem_stride=2, transition="pool"),
    "pruned": Architecture(3, 10, (Stage(5, (1, 3)), Stage(7, (2, 9)), Stage(11, (13,)))),
    "kernels of 5 in the stem": Architecture(3, 10, (Stage(5, (3,)), Stage(7, (2, 9))), stem_kernel=5),
    "imagenet18": build("imagenet18", depth=1, width=0.25, in_channels=3, n_classes=10),
    "factorised": with_factors(build("small", depth=2, width=1.0, in_channels=3, n_classes=10), 1, share=0.7),
    "pooled": Architecture(3, 10, (Stage(5, (3,)), Stage(7, (2, 9))), downsampling=Downsampling("s3")),
    "pooled behind a convolution": with_factors(
        Architecture(3, 10, (Stage(5, (3,)), Stage(7, (2, 9))), downsampling=Downsampling("average", behind=True)), 1
    ),
    "pooled in the place of a max-pooling": Architecture(
        1,
        10,
        (Stage(5, (3,)), Stage(7, (2, 9))),
        transition="pool",
        downsampling=Downsampling("stochastic", behind=True),
    ),
    "pruned to shortcuts": Architecture(1, 3, (Stage(3, ()), Stage(5, (0,)), Stage(7, (0, 2))), stem_stride=2),
}


def formula(architecture: Architecture, size: int) -> tuple[int, int]:
    """Multiply-adds times 2 of (the forward pass, the stem's convolution alone), per image."""
    halved = 2 if architecture.stem == "haar" else 1
    side, width = ceil(ceil(size / halved) / architecture.stem_stride), architecture.stages[0].width
    factors = dict(architecture.factors)
    stem = 2 * architecture.stem_kernel**2 * architecture.in_channels * halved**2 * width * side**2
    side = ceil(side / 2) if architecture.stem_pool else side
    total = stem
    for number, stage in enumerate(architecture.stages):
        for position, interior in enumerate(stage.interiors):
            if number > 0 and position == 0:
                before, side = side, ceil(side / 2)
                taps = side**2 if architecture.transition == "projection" else 9 * before**2
                total += 2 * width * stage.width * taps
            read = before if number > 0 and position == 0 else side
            put_out = side  # by the first of the two convolutions
            if architecture.downsampling is not None and architecture.transition == "projection":
                read = put_out = read if architecture.downsampling.behind else side
            for n, n_in, n_out, seen, told in (
                (1, width, interior, read, put_out),
                (2, interior, stage.width, side, side),
            ):
                ranks = factors.get(f"stage{number}.block{position}.conv{n}")
                if ranks is None:
                    total += 2 * 9 * n_in * n_out * told**2
                else:
                    total += 2 * (n_in * ranks[0] * seen**2 + (9 * ranks[0] + n_out) * ranks[1] * told**2)
            width = stage.width
    head = (
        factors["head"][0] * (width + architecture.n_classes) if "head" in factors else width * architecture.n_classes
    )
    return total + 2 * head, stem


@pytest.mark.parametrize("size", [8, 15, 32])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_inference_is_the_sum_over_convolutions_and_the_head(architecture: Architecture, size: int) -> None:
    assert count(architecture, size)[0] == formula(architecture, size)[0]
    if not architecture.factors:
        head = 2 * architecture.stages[-1].width * architecture.n_classes
        assert image_flops(architecture, size) + head == count(architecture, size)[0]


@pytest.mark.parametrize("size", [8, 15, 32])
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_a_training_step_is_three_forward_passes_less_the_gradient_to_the_image(
    architecture: Architecture, size: int
) -> None:
    forward, stem = formula(architecture, size)
    assert count(architecture, size)[1] == 3 * forward - stem


def test_resnet_20_costs_what_the_paper_says() -> None:
    """41 million multiply-adds at 32x32 with 10 classes; the projection shortcuts of this one add 0.3."""
    forward, _ = count(build("thin", depth=3, width=1.0, in_channels=3, n_classes=10), 32)
    assert forward / 2 == pytest.approx(40.8e6, rel=0.01)
