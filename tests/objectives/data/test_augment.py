"""Laws of batches: which images an epoch shows, how they are cropped, mirrored, blanked and normalised."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.augment import Augmentation, Batches, Normalisation
from objectives.data.dataset import Dataset, Images

CPU = torch.device("cpu")
PLAIN = Augmentation()
EVERYTHING = Augmentation(padding=1, flip=True, cutout=2)
SEEDS = (11, 22)


def numbered(n: int, channels: int = 1, size: int = 4) -> Dataset:
    """`n` images without a zero pixel, labelled by their position; normalisation changes no value."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randint(1, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    images = Images(x.contiguous(memory_format=torch.channels_last), torch.arange(n))
    no_change = (0.0,) * channels, (1 / 255,) * channels
    return Dataset("numbered", tuple(map(str, range(n))), images, images, *no_change, True, "", "", (), ())


def batches(dataset: Dataset, batch_size: int, augmentation: Augmentation, seeds: tuple[int, int] = SEEDS) -> Batches:
    return Batches(dataset.train, batch_size, augmentation, Normalisation(dataset, CPU), seeds)


def epoch(source: Batches, number: int) -> tuple[Tensor, Tensor]:
    """All images of an epoch and their labels."""
    parts = list(source.epoch(number))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@pytest.mark.parametrize(("n", "batch_size", "n_steps", "n_shown"), [(10, 4, 2, 8), (8, 4, 2, 8), (3, 4, 1, 3)])
def test_an_epoch_shows_each_image_at_most_once_and_leaves_out_the_incomplete_batch(
    n: int, batch_size: int, n_steps: int, n_shown: int
) -> None:
    source = batches(numbered(n), batch_size, EVERYTHING)
    seen = set()
    for number in range(30):
        parts = list(source.epoch(number))
        assert len(parts) == source.n_steps == n_steps
        assert all(len(y) == len(x) == source.batch_size for x, y in parts)
        labels = torch.cat([y for _, y in parts]).tolist()
        assert len(set(labels)) == len(labels) == n_shown
        seen |= set(labels)
    assert seen == set(range(n))


@pytest.mark.parametrize(
    "augmentation",
    [PLAIN, EVERYTHING, Augmentation(padding=1), Augmentation(flip=True, alternating=True), Augmentation(cutout=2)],
)
@pytest.mark.parametrize("batch_size", [3, 40])
def test_the_first_batch_can_be_had_alone(augmentation: Augmentation, batch_size: int) -> None:
    source = batches(numbered(20, channels=3), batch_size, augmentation)
    for one, other in zip(source.first(), next(source.epoch(0)), strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.parametrize("augmentation", [EVERYTHING, Augmentation(flip=True), Augmentation(padding=2)], ids=str)
def test_images_too_many_for_one_table_are_cut_alike(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = numbered(20, channels=3)
    whole = batches(dataset, 6, augmentation)
    monkeypatch.setattr("objectives.data.augment.TABLE", 0)
    piecewise = batches(dataset, 6, augmentation)
    for number in range(3):
        assert all(map(torch.equal, epoch(piecewise, number), epoch(whole, number)))


def test_an_epoch_is_a_function_of_its_number_and_the_seeds_alone() -> None:
    dataset = numbered(20)
    source, fresh = (batches(dataset, 5, EVERYTHING) for _ in range(2))
    expected = epoch(fresh, 3)
    for number in (0, 7, 3, 3):
        torch.rand(5)  # the default generator has no say
        found = epoch(source, number)
        assert torch.equal(found[1], expected[1]) == (number == 3)
        assert torch.equal(found[0], expected[0]) == (number == 3)
    interleaved = zip(source.epoch(3), source.epoch(4), strict=True)
    assert torch.equal(torch.cat([x for (x, _), _ in interleaved]), expected[0])


def test_order_and_augmentation_have_a_seed_each() -> None:
    dataset = numbered(20)
    (x, y), (same_order, y_same), (_, y_other) = (
        epoch(batches(dataset, 5, EVERYTHING, seeds), 0) for seeds in [(1, 2), (1, 3), (2, 2)]
    )
    assert torch.equal(y, y_same)
    assert not torch.equal(x, same_order)
    assert not torch.equal(y, y_other)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_augmentation_an_epoch_shows_the_images_themselves(channels: int) -> None:
    dataset = numbered(12, channels)
    x, y = epoch(batches(dataset, 4, PLAIN), 0)
    assert torch.equal(x, dataset.train.x[y].float())


def windows(image: Tensor, padding: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every window of a padded image [channels, size, size], by its pixels."""
    size = image.shape[-1]
    padded = F.pad(image, (padding,) * 4)
    found = {}
    for top, left, mirrored in product(range(2 * padding + 1), range(2 * padding + 1), (False, True)[: 1 + flip]):
        window = padded[:, top : top + size, left : left + size]
        found[(window.flip(2) if mirrored else window).contiguous().numpy().tobytes()] = (top, left, mirrored)
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "flip"), [(1, False), (2, False), (0, True), (1, True)])
def test_each_image_shown_is_a_window_of_its_padded_image_and_every_window_is_shown(
    channels: int, padding: int, flip: bool
) -> None:
    dataset = numbered(40, channels)
    source = batches(dataset, 20, Augmentation(padding=padding, flip=flip))
    allowed = [windows(image, padding, flip) for image in dataset.train.x]
    seen = set()
    for number in range(12):
        x, y = epoch(source, number)
        for image, label in zip(x.to(torch.uint8), y.tolist(), strict=True):
            seen.add(allowed[label][image.contiguous().numpy().tobytes()])  # a KeyError: no window of that image
    assert seen == set(product(range(2 * padding + 1), range(2 * padding + 1), (False, True)[: 1 + flip]))


@pytest.mark.parametrize("side", [1, 2, 3, 6, 12])
def test_cutout_blanks_a_square_around_any_pixel_clipped_at_the_borders(side: int) -> None:
    size = 6
    dataset = numbered(50, channels=2, size=size)
    source = batches(dataset, 50, Augmentation(cutout=side))
    allowed = {(max(0, c - side // 2), min(size, c - side // 2 + side)) for c in range(size)}
    seen = set()
    for number in range(20):
        x, y = epoch(source, number)
        for image, label in zip(x, y.tolist(), strict=True):
            rows, columns = ((image == 0).all(0).any(dim).nonzero().flatten() for dim in (1, 0))
            top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
            expected = dataset.train.x[label].float()
            expected[:, top:bottom, left:right] = 0
            assert torch.equal(image, expected)
            seen.add(((top, bottom), (left, right)))
    assert seen == set(product(allowed, allowed))


def test_all_augmentations_compose() -> None:
    dataset = numbered(40)
    x, y = epoch(batches(dataset, 20, EVERYTHING), 0)
    for image, label in zip(x, y.tolist(), strict=True):
        pixels = [
            torch.frombuffer(bytearray(w), dtype=torch.uint8).view(1, 4, 4)
            for w in windows(dataset.train.x[label], 1, True)
        ]
        blanked = [torch.where(image == 0, 0, window.float()) for window in pixels]
        assert any(torch.equal(image, window) for window in blanked)
        assert (image == 0).sum() >= 1


def test_images_are_normalised_over_the_training_set_and_lie_in_channels_last(digits: Dataset) -> None:
    x, _ = next(batches(digits, len(digits.train.y), PLAIN).epoch(0))
    assert x.dtype == torch.float32
    assert abs(x.double().mean().item()) < 1e-5
    assert x.double().std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_each_channel_is_normalised_by_its_own_statistics() -> None:
    dataset = numbered(4, channels=3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    normalise = Normalisation(Dataset("", (), dataset.train, dataset.val, mean, std, True, "", "", (), ()), CPU)
    expected = (dataset.train.x.double() / 255 - torch.tensor(mean).view(1, 3, 1, 1).double()) / torch.tensor(std).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(normalise(dataset.train.x).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "augmentation", [PLAIN, Augmentation(padding=1), Augmentation(flip=True), Augmentation(cutout=2), EVERYTHING]
)
def test_batches_lie_in_channels_last(augmentation: Augmentation) -> None:
    x, _ = next(batches(numbered(8, channels=3), 4, augmentation).epoch(0))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_batches_over_the_same_are_themselves_and_over_others_keep_order_and_augmentation() -> None:
    dataset = numbered(20)
    source = batches(dataset, 5, EVERYTHING)
    assert source.over(dataset.train, 5) is source
    whole = batches(dataset, 99, EVERYTHING)
    assert whole.over(dataset.train, 50) is whole  # both are all 20 images
    larger = source.over(dataset.train, 10)
    assert (larger.n_steps, larger.batch_size) == (2, 10)
    assert torch.equal(epoch(larger, 2)[1], epoch(source, 2)[1])
    other = Images(dataset.train.x.flip(0), dataset.train.y)
    assert torch.equal(epoch(source.over(other, 5), 2)[1], epoch(source, 2)[1])
    assert not torch.equal(epoch(source.over(other, 5), 2)[0], epoch(source, 2)[0])


def test_batches_that_repeat_come_in_the_order_of_the_first_epoch_and_are_augmented_anew() -> None:
    dataset = numbered(20)
    source = batches(dataset, 5, EVERYTHING)
    repeating = source.over(dataset.train, 5, repeats=True)
    assert repeating.over(dataset.train, 5, repeats=True) is repeating
    for number in range(3):
        assert torch.equal(epoch(repeating, number)[1], epoch(source, 0)[1])
    assert not torch.equal(epoch(repeating, 1)[0], epoch(repeating, 0)[0])
    assert not torch.equal(epoch(repeating.over(dataset.train, 5), 1)[1], epoch(source, 0)[1])


def test_an_alternating_flip_shows_every_image_from_each_side_in_turn() -> None:
    dataset = numbered(40)
    source = batches(dataset, 8, Augmentation(flip=True, alternating=True))
    sides = []
    for number in range(4):
        x, y = epoch(source, number)
        original = Normalisation(dataset, CPU)(dataset.train.x[y])
        is_mirrored = torch.tensor([torch.equal(one, other.flip(2)) for one, other in zip(x, original, strict=True)])
        is_plain = torch.tensor([torch.equal(one, other) for one, other in zip(x, original, strict=True)])
        assert torch.equal(is_mirrored, ~is_plain)
        sides.append(is_mirrored[y.argsort()])
    assert 5 < int(sides[0].sum()) < 35  # at random in the first epoch
    assert torch.equal(sides[1], ~sides[0])
    assert torch.equal(sides[2], sides[0])
    assert torch.equal(sides[3], ~sides[0])
