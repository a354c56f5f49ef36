from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fundus_seg.data import FundusDataset
from fundus_seg.errors import DataError


def test_dataset_gives_typed_samples(draw_root):
    dataset = FundusDataset(draw_root(), "B", "test")
    assert len(dataset) == 4
    sample = dataset[1]
    assert sample.name == "Btest1"
    assert (sample.image.shape, sample.image.dtype) == ((64, 64, 3), np.uint8)
    assert (sample.masks.shape, sample.masks.dtype) == ((2, 64, 64), np.bool_)
    assert (sample.masks[1] <= sample.masks[0]).all()
    assert [sample.name for sample in dataset] == [f"Btest{number}" for number in range(4)]


def test_different_sizes_name_both(draw_root):
    root = draw_root()
    path = root / "Domain1/train/ROIs/mask/Atrain0.png"
    Image.open(path).resize((32, 16), Image.Resampling.NEAREST).save(path)
    with pytest.raises(DataError, match=r"Atrain0\.png: 32x16 pixels, but its photograph has 64x64"):
        FundusDataset(root, "A", "train")[0]
