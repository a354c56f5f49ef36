"""The example of face verification: its reading of pairs, its ten folds, its loss, and a training on the phantom."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fundus_seg.models.backbones import Embedder, mobilenet_v2
from fundus_seg.ops import TVConv2d

EXAMPLE = Path(__file__).parents[1] / "examples" / "face_verification"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        from phantom import make_faces

        make_faces(out, identities=6, unseen=3, pictures=4, side=32)
    return out


class TestPairs:
    def test_of_lfw(self, drawn: Path) -> None:
        from faces import read_pairs

        pairs = read_pairs(drawn / "pairs.txt", drawn / "test")
        assert len(pairs.left) == len(pairs.same) == 10 * 6
        assert pairs.same.tolist() == 10 * [*[True] * 3, *[False] * 3]
        assert np.bincount(pairs.fold).tolist() == [6] * 10
        one_identity = [one.parent == two.parent for one, two in zip(pairs.left, pairs.right, strict=True)]
        assert one_identity == pairs.same.tolist()
        assert all(one != two for one, two in zip(pairs.left, pairs.right, strict=True))

    def test_of_two_files_and_a_flag(self, tmp_path: Path) -> None:
        from faces import read_pairs

        for name in ("a.jpg", "b.jpg"):
            (tmp_path / name).touch()
        lines = ["a.jpg b.jpg 1"] * 5 + ["b.jpg a.jpg -1", "b.jpg a.jpg 0"] * 2 + ["a.jpg a.jpg 1"]
        (tmp_path / "pairs.txt").write_text("\n".join(lines))
        pairs = read_pairs(tmp_path / "pairs.txt", tmp_path)
        assert pairs.same.tolist() == [True] * 5 + [False] * 4 + [True]
        assert pairs.fold.tolist() == list(range(10))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.jpg a.jpg 2\n", r"pairs\.txt:1: 'a\.jpg a\.jpg 2' is no pair"),
            ("10 1\na 1\n", r"pairs\.txt:2: 'a 1' is no pair"),
            ("a.jpg c.jpg 1\n", r"names .*c\.jpg, which is not there"),
            ("a.jpg a.jpg 1\n", "holds 1 pairs, which make no 10 equal folds"),
            ("", "holds no pairs"),
        ],
    )
    def test_refusals(self, tmp_path: Path, text: str, message: str) -> None:
        from faces import read_pairs

        (tmp_path / "a.jpg").touch()
        (tmp_path / "pairs.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_pairs(tmp_path / "pairs.txt", tmp_path)


class TestTenFolds:
    @pytest.mark.parametrize(
        ("similarity", "same", "threshold"),
        [
            ([0.9, 0.7, 0.4, 0.1], [1, 1, 0, 0], 0.55),
            ([0.9, 0.7, 0.4, 0.1], [0, 0, 0, 0], 1.4),
            ([0.9, 0.7, 0.4, 0.1], [1, 1, 1, 1], -0.4),
            ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.7),  # the equal ones are accepted together: no gain
        ],
    )
    def test_threshold(self, similarity: list[float], same: list[int], threshold: float) -> None:
        from verification import best_threshold

        assert best_threshold(np.array(similarity), np.array(same, bool)) == pytest.approx(threshold)

    def test_no_threshold_is_better(self) -> None:
        from verification import best_threshold

        rng = np.random.default_rng(0)
        similarity, same = np.round(rng.normal(size=60), 1), rng.random(60) < 0.5

        def accuracy(threshold: float) -> float:
            return float(np.mean((similarity >= threshold) == same))

        assert accuracy(best_threshold(similarity, same)) == max(map(accuracy, np.arange(-4, 4, 0.05)))

    def test_a_fold_does_not_choose_its_threshold(self) -> None:
        from verification import by_fold, ten_folds

        fold = np.repeat(np.arange(10), 2)
        similarity, same = np.tile([0.8, 0.2], 10), np.tile([True, False], 10)
        assert ten_folds(similarity, same, fold).all()
        similarity[:2] = [0.4, 0.3]  # apart, but both below what the other folds choose
        right = ten_folds(similarity, same, fold)
        assert right.tolist() == [False, *[True] * 19]
        assert by_fold(right, fold).tolist() == [0.5, *[1.0] * 9]


def test_the_margin_is_taken_from_the_true_cosine() -> None:
    from train import MARGIN, SCALE, AMSoftmax

    loss_of = AMSoftmax(2, 2)
    loss_of.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # of any length
    true, other = SCALE * (0.6 - MARGIN), SCALE * 0.8
    expected = -math.log(math.exp(true) / (math.exp(true) + math.exp(other)))
    assert loss_of(torch.tensor([[6.0, 8.0]]), torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)


def test_the_phantom_is_drawn_from_its_seed() -> None:
    from phantom import draw_face

    assert np.array_equal(draw_face(3, 1, side=32), draw_face(3, 1, side=32))
    faces = [draw_face(identity, picture, side=32) for identity, picture in ((3, 1), (3, 2), (4, 1))]
    assert all(not np.array_equal(faces[0], other) for other in faces[1:])
    assert not np.array_equal(faces[0], draw_face(3, 1, seed=1, side=32))


def small_tvconv(channels: int, size: tuple[int, int], stride: int) -> nn.Module:
    return TVConv2d(channels, size, stride=stride, affinity_channels=2, generator_channels=2, generator_layers=0)


def test_a_short_training_lowers_the_loss_and_repeats_to_the_bit(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from faces import Identities, read_pairs
    from train import train
    from verification import similarities

    monkeypatch.setattr("train.BATCH", 12)  # the full learning rate for these batches
    data, runs = Identities(drawn / "train"), []
    for _ in range(2):
        torch.manual_seed(0)
        network = Embedder(mobilenet_v2(0.1, small_tvconv, image_size=32), dimensions=16)
        losses = train(network, data, dimensions=16, epochs=4, batch=12, seed=0)
        runs.append([next(losses)])
    assert runs[0] == runs[1]
    assert min(losses) < runs[0][0]
    pairs = read_pairs(drawn / "pairs.txt", drawn / "test")
    assert np.abs(similarities(network, pairs)).max() <= 1 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["depthwise", "tvconv"])
def test_a_longer_training_tells_unseen_identities_apart(tmp_path: Path, operator: str) -> None:
    from faces import Identities, read_pairs
    from phantom import make_faces
    from train import train
    from verification import similarities, ten_folds

    make_faces(tmp_path, side=32)
    torch.manual_seed(0)
    network = Embedder(mobilenet_v2(0.1, operator, image_size=32))
    for _ in train(network, Identities(tmp_path / "train"), dimensions=512, epochs=24, batch=32, seed=0):
        pass
    pairs = read_pairs(tmp_path / "pairs.txt", tmp_path / "test")
    assert ten_folds(similarities(network, pairs), pairs.same, pairs.fold).mean() > 0.7
