from __future__ import annotations

import numpy as np
import torch

from fundus_seg.config import TrainConfig
from fundus_seg.data.batches import DomainBatches, draw_cases
from fundus_seg.data.cache import ResizedSplit
from fundus_seg.data.transforms import augmentation
from fundus_seg.seeding import generator


def split(count: int, size: int = 32) -> ResizedSplit:
    """Photographs whose every pixel is the case's number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3))
    masks = np.zeros((count, 2, size, size), dtype=np.uint8)
    return ResizedSplit("", tuple(map(str, range(count))), images, masks, (), np.ones((count, 2), bool))


def numbers(batch):
    return batch.images[:, 0, 0, 0].tolist()


def test_an_epoch_passes_over_the_largest_domain_and_cycles_the_others():
    batches = DomainBatches({"B": split(10), "C": split(3)}, TrainConfig(batch_per_domain=4), seed=0)
    assert batches.steps == 3  # ceil(10 / 4)
    epoch = list(batches.epoch(0))
    assert all(batch.images.shape == (8, 3, 32, 32) and batch.masks.shape == (8, 2, 32, 32) for batch in epoch)
    assert epoch[0].domains.tolist() == [0] * 4 + [1] * 4
    large = [number for batch in epoch for number in numbers(batch)[:4]]
    small = [number for batch in epoch for number in numbers(batch)[4:]]
    assert sorted(large[:10]) == list(range(10))
    assert all(sorted(small[start : start + 3]) == [0, 1, 2] for start in range(0, 12, 3))


def test_epochs_and_seeds_differ_and_repeat():
    def drawn(seed, epoch):
        batches = DomainBatches({"B": split(50)}, TrainConfig(batch_per_domain=8), seed=seed)
        return [numbers(batch) for batch in batches.epoch(epoch)]

    assert drawn(0, 1) == drawn(0, 1)
    assert len({str(drawn(*key)) for key in [(0, 0), (0, 1), (1, 0)]}) == 3


def test_draws_with_replacement_repeat_cases():
    drawn = draw_cases(10, 1000, "replacement", np.random.default_rng(0))
    assert set(drawn) == set(range(10))
    assert any(len(set(drawn[start : start + 10])) < 10 for start in range(0, 1000, 10))


def test_scale_crop_enlarges_image_and_masks_together():
    rows, columns = np.mgrid[:64, :64]
    square = ((abs(rows - 32) < 8) & (abs(columns - 32) < 8)).astype(np.uint8)
    augment = augmentation("scale-crop", 64, seed=0)
    areas = []
    for _ in range(40):
        image, masks = augment(np.repeat(square[..., None] * 255, 3, axis=2), np.stack([square, square]))
        assert (image.shape, masks.shape) == ((64, 64, 3), (2, 64, 64))
        assert np.mean((image[..., 0] > 127) == masks[0]) > 0.97
        areas.append(masks[0].sum() / square.sum())
    assert 0.9 < min(areas) < 1.1
    assert 1.3 < max(areas) < 2.4
    assert 10 <= sum(area == 1 for area in areas) <= 30  # applied with probability 1/2


def test_augmentation_repeats_with_its_seed():
    batches = DomainBatches({"B": split(8)}, TrainConfig(batch_per_domain=4, augment="scale-crop"), seed=5)
    for first, second in zip(batches.epoch(2), batches.epoch(2), strict=True):
        assert torch.equal(first.images, second.images)


def test_batches_are_the_drawn_cases_of_the_shared_arrays():
    rng = np.random.default_rng(0)
    sources = {}
    for domain, count in (("B", 7), ("C", 5)):
        images, masks = rng.integers(256, size=(count, 8, 8, 3)), rng.integers(2, size=(count, 2, 8, 8))
        images, masks = images.astype(np.uint8), masks.astype(np.uint8)
        images.flags.writeable = masks.flags.writeable = False  # as a memory map's
        sources[domain] = ResizedSplit("", tuple(map(str, range(count))), images, masks, (), np.ones((count, 2), bool))
    batches = DomainBatches(sources, TrainConfig(batch_per_domain=3), seed=4)
    drawn = {
        key: draw_cases(len(s.names), 9, "passes", generator(4, 1, f"batches/{key}")) for key, s in sources.items()
    }
    for step, batch in enumerate(batches.epoch(1)):
        picked = {key: indices[3 * step : 3 * step + 3] for key, indices in drawn.items()}
        images = np.concatenate([sources[key].images[indices] for key, indices in picked.items()])
        assert np.array_equal(batch.images, images.transpose(0, 3, 1, 2))
        assert np.array_equal(batch.masks, np.concatenate([sources[key].masks[picked[key]] for key in picked]))
    assert [kept.data_ptr() for kept in batches._images] == [each.images.ctypes.data for each in sources.values()]


def test_batches_are_made_on_the_device_without_waiting_for_it():
    """A meta tensor has no values: whatever asks the device for one raises."""
    batches = DomainBatches({"B": split(5), "C": split(3)}, TrainConfig(batch_per_domain=2), seed=0, device="meta")
    epoch = list(batches.epoch(0))
    assert len(epoch) == 3
    assert {each.device.type for batch in epoch for each in (batch.images, batch.masks)} == {"meta"}
    assert {batch.domains.device.type for batch in epoch} == {"cpu"}  # where methods draw
    assert (epoch[0].images.shape, epoch[0].masks.shape) == ((4, 3, 32, 32), (4, 2, 32, 32))


def test_augmented_batches_are_made_on_the_cpu():
    train = TrainConfig(batch_per_domain=2, augment="scale-crop")
    batch = next(DomainBatches({"B": split(5)}, train, seed=0, device="meta").epoch(0))
    assert batch.images.device.type == "cpu"


def test_no_augmentation_is_none():
    assert augmentation("none", 64, seed=0) is None
