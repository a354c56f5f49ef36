"""The example of face verification: its reading of pairs, its ten folds, its loss, and a training on the phantom."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

from fundus_seg.errors import DataError, RunError, UsageError
from fundus_seg.models.backbones import Embedder, mobilenet_v2
from fundus_seg.models.slots import SLOTS
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
    """Lists are written here as the data sets' own documents describe them."""

    @staticmethod
    def pictures(root: Path, names: Iterable[str]) -> Path:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    def test_of_lfw(self, drawn: Path) -> None:
        from pairs import read_pairs

        pairs = read_pairs(drawn / "pairs.txt", drawn / "test")
        assert len(pairs.left) == len(pairs.same) == 10 * 6
        assert pairs.same.tolist() == 10 * [*[True] * 3, *[False] * 3]
        assert np.bincount(pairs.fold).tolist() == [6] * 10
        one_identity = [one.parent == two.parent for one, two in zip(pairs.left, pairs.right, strict=True)]
        assert one_identity == pairs.same.tolist()
        assert all(one != two for one, two in zip(pairs.left, pairs.right, strict=True))
        assert pairs.identity == [path.parent.name for path in pairs.left]

    def test_of_cfp(self, tmp_path: Path) -> None:
        from pairs import read_pairs

        protocol = tmp_path / "Protocol"
        names = ["001/frontal/01.jpg", "001/frontal/02.jpg", "002/frontal/01.jpg"]
        protocol.mkdir()
        listed = [f"{number} ../Data/Images/{name}" for number, name in enumerate(names, 1)]
        (protocol / "Pair_list_F.txt").write_text("\n".join(listed))
        for fold in range(1, 11):
            folder = protocol / "Split" / "FF" / f"{fold:02d}"
            folder.mkdir(parents=True)
            (folder / "same.txt").write_text("1,2\n2,1\n")
            (folder / "diff.txt").write_text("3,1\n")
        images = self.pictures(tmp_path / "aligned", [name.replace(".jpg", ".png") for name in names])
        pairs = read_pairs(protocol, images)
        assert pairs.same.tolist() == 10 * [True, True, False]
        assert pairs.fold.tolist() == np.repeat(range(10), 3).tolist()
        assert pairs.left[2:4] == [images / "002/frontal/01.png", images / "001/frontal/01.png"]
        assert pairs.identity[:3] == ["001", "001", "002"]
        (protocol / "Split" / "FF" / "03" / "diff.txt").write_text("4,1\n")
        with pytest.raises(DataError, match=r"03/diff\.txt:1: '4,1' is no pair; here .* lines of Pair_list_F\.txt"):
            read_pairs(protocol, images)

    def test_of_agedb(self, tmp_path: Path) -> None:
        from pairs import read_pairs

        def cell(value: object) -> np.ndarray:
            whole = np.empty((1, 1), object)
            whole[0, 0] = value
            return whole

        def picture(name: str) -> np.ndarray:
            return np.array([[(name, 30)]], dtype=[("name", object), ("age", object)])

        rows = np.empty((2, 2), object)
        for (row, column), name in np.ndenumerate([["Ann_1_a_20_f", "Bob_3_b_31_m"], ["Ann_2_a_50_f", "Cid_4_c_61_m"]]):
            rows[row, column] = picture(name)
        splits = np.empty((10, 1), object)
        splits[:, 0] = [np.array([[(rows,)]], dtype=[("pairs", object)]) for _ in range(10)]
        savemat(tmp_path / "04_FINAL_protocol_30_years.mat", {"splits": splits})
        images = self.pictures(
            tmp_path / "images",
            [f"{name}.jpg" for name in ("Ann_1_a_20_f", "Ann_2_a_50_f", "Bob_3_b_31_m", "Cid_4_c_61_m")],
        )
        pairs = read_pairs(tmp_path / "04_FINAL_protocol_30_years.mat", images)
        assert pairs.same.tolist() == 10 * [True, False]
        assert pairs.fold.tolist() == np.repeat(range(10), 2).tolist()
        assert [path.name for path in pairs.right[:2]] == ["Ann_2_a_50_f.jpg", "Cid_4_c_61_m.jpg"]
        assert pairs.identity[:2] == ["Ann", "Bob"]
        savemat(tmp_path / "other.mat", {"splits": np.zeros((10, 2))})
        with pytest.raises(DataError, match=r"other\.mat: its variable `splits` is not"):
            read_pairs(tmp_path / "other.mat", images)

    def test_of_calfw(self, tmp_path: Path) -> None:
        from pairs import read_pairs

        same = [f"A_B_0001.jpg {fold}\nA_B_0002.jpg {fold}\n" for fold in range(1, 11)]
        listed = tmp_path / "pairs_CALFW.txt"
        listed.write_text("".join(same) + "A_B_0001.jpg 0\nC_0001.jpg 0\n" * 20)
        images = self.pictures(tmp_path / "images", ["A_B_0001.jpg", "A_B_0002.jpg", "C_0001.jpg"])
        pairs = read_pairs(listed, images)
        assert pairs.same.tolist() == [*[True] * 10, *[False] * 20]
        assert pairs.fold.tolist() == [*range(10), *np.repeat(range(10), 2)]
        assert set(pairs.identity) == {"A_B"}

    def test_of_two_files_and_a_flag(self, tmp_path: Path) -> None:
        from pairs import read_pairs

        self.pictures(tmp_path, ["a.jpg", "b.jpg"])
        lines = ["a.jpg b.jpg 1"] * 5 + ["b.jpg a.jpg -1", "b.jpg a.jpg 0"] * 2 + ["a.jpg a.jpg 1"]
        (tmp_path / "pairs.txt").write_text("\n".join(lines))
        pairs = read_pairs(tmp_path / "pairs.txt", tmp_path)
        assert pairs.same.tolist() == [True] * 5 + [False] * 4 + [True]
        assert pairs.fold.tolist() == list(range(10))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.jpg a.jpg 2\n" * 10, r"pairs\.txt:1: 'a\.jpg a\.jpg 2' is no pair; here it has the form LEFT RIGHT 1"),
            ("10 1\n" + "a 1\n" * 20, r"pairs\.txt:2: 'a 1' is no pair; here it has the form NAME 1 4"),
            ("10 1\n" + "a 1 2\n" * 20, r"pairs\.txt:3: 'a 1 2' is no pair; .* NAME 1 OTHER 4"),
            ("10 300\na 1 2\n", r"says folds 10, with 300 pairs of one identity .*, but 1 pairs follow"),
            ("1\na 1 2\na 1 b 2\n", "holds pairs of 1 folds; verification takes 10"),
            ("a.jpg c.jpg 1\n" * 10, r"pairs\.txt: c\.jpg is not in .*; give the folder that holds the pictures"),
            ("a.jpg a.jpg 1\n", "1 pairs make no 10 equal folds"),
            ("a.jpg 1\n", "its last pair lacks a line"),
            ("a.jpg 1\na.jpg 2\n", r"pairs\.txt:1: 'a\.jpg 1 a\.jpg 2' is no pair"),
            ("", "holds no pairs"),
        ],
    )
    def test_refusals(self, tmp_path: Path, text: str, message: str) -> None:
        from pairs import read_pairs

        (tmp_path / "a.jpg").touch()
        (tmp_path / "pairs.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            read_pairs(tmp_path / "pairs.txt", tmp_path)

    def test_a_list_that_is_not_there(self, tmp_path: Path) -> None:
        from pairs import read_pairs

        for path in (tmp_path / "pairs.txt", tmp_path):  # a folder is taken for that of CFP
            with pytest.raises(DataError, match="no list of pairs that can be read"):
                read_pairs(path, tmp_path)


class TestIdentities:
    def test_refusals(self, tmp_path: Path) -> None:
        from faces import Identities

        with pytest.raises(DataError, match="there: no such folder"):
            Identities(tmp_path / "there", 32)
        with pytest.raises(DataError, match="folders in it: 0; put the pictures of each identity into one of its own"):
            Identities(tmp_path, 32)
        TestPairs.pictures(tmp_path, ["a/1.png", "a/2.png", "b/1.png", "c/note.txt"])
        with pytest.raises(DataError, match="2 of 3 identities have fewer than two pictures, the first is b;"):
            Identities(tmp_path, 32)

    def test_a_picture_of_another_size(self, drawn: Path) -> None:
        from faces import Identities

        with pytest.raises(DataError, match=r"\.png: 32x32 pixels, not 96x96; align the faces, or say --side"):
            Identities(drawn / "train", 96)[0]


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
    from faces import Identities
    from pairs import read_pairs
    from train import train
    from verification import similarities

    monkeypatch.setattr("train.BATCH", 12)  # the full learning rate for these batches
    data, runs = Identities(drawn / "train", 32), []
    for _ in range(2):
        torch.manual_seed(0)
        network = Embedder(mobilenet_v2(0.1, small_tvconv, image_size=32), dimensions=16)
        losses = train(network, data, dimensions=16, epochs=4, batch=12, seed=0)
        runs.append([next(losses)])
    assert runs[0] == runs[1]
    assert min(losses) < runs[0][0]
    pairs = read_pairs(drawn / "pairs.txt", drawn / "test")
    assert np.abs(similarities(network, pairs, 32)).max() <= 1 + 1e-6
    with pytest.raises(UsageError, match="--batch 512: there are only 24 pictures"):
        next(train(network, data, epochs=1, batch=512, seed=0))
    next(network.parameters()).data.fill_(math.nan)
    with pytest.raises(RunError, match="the loss is no longer finite in epoch 1"):
        next(train(network, data, dimensions=16, epochs=1, batch=12, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["depthwise", "tvconv"])
def test_a_longer_training_tells_unseen_identities_apart(tmp_path: Path, operator: str) -> None:
    from faces import Identities
    from pairs import read_pairs
    from phantom import make_faces
    from script import PHANTOM
    from train import make_network, train
    from verification import similarities, ten_folds

    make_faces(tmp_path, side=32)
    network = make_network("mobilenetv2", 0.1, operator, side=32, seed=0)
    epochs, batch = PHANTOM
    for _ in train(network, Identities(tmp_path / "train", 32), epochs=epochs, batch=batch, seed=0):
        pass
    pairs = read_pairs(tmp_path / "pairs.txt", tmp_path / "test")
    assert ten_folds(similarities(network, pairs, 32), pairs.same, pairs.fold).mean() > 0.7


class TestGrid:
    """A grid of networks on few small faces, its costs and its figures."""

    @pytest.fixture
    def words(self, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        from costs import measure_throughput

        few = partial(measure_throughput, batches=(1,), threads=(1,), repeats=2)
        monkeypatch.setitem(SLOTS, "small", small_tvconv)
        monkeypatch.setattr("figures.measure_throughput", few)
        places = ["--train", drawn / "train", "--pairs", drawn / "pairs.txt", "--pictures", drawn / "test"]
        how = ["--side", 32, "--epochs", 1, "--batch", 12, "--seeds", 1, "--ops", "depthwise,small"]
        return [str(word) for word in (*places, *how, "--out", tmp_path / "out")]

    def test_figures_from_one_command(
        self, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import compare
        import figures

        monkeypatch.setattr("sys.argv", ["figures.py", *words, "--plots", str(tmp_path / "plots")])
        figures.main()
        names = ["accuracy", "throughput", "trade-off", "affinity-small-x0.1"]
        assert {path.name for path in (tmp_path / "plots").iterdir()} == {
            f"{n}.{end}" for n in names for end in ("png", "svg")
        }
        assert capsys.readouterr().out.count("trained") == 2
        monkeypatch.setattr("sys.argv", ["compare.py", *words])
        compare.main()
        told = capsys.readouterr().out
        assert "trained" not in told  # what is there is not trained again
        assert "small - depthwise: " in told
        monkeypatch.setattr("sys.argv", ["compare.py", *words, "--batch", "6"])
        with pytest.raises(
            RunError, match=r"recipe\.json: its networks differ from these in batch; choose another --out"
        ):
            compare.main()
        monkeypatch.setattr("sys.argv", ["compare.py", *words])
        for kept in (next((tmp_path / "out").rglob("pairs.csv")), tmp_path / "out" / "recipe.json"):
            kept.write_text(kept.read_text()[: kept.stat().st_size // 2])
            with pytest.raises(RunError, match=f"{kept.name}: cannot be read; remove the folder"):
                compare.main()

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--ops", "depthwise,smal"], "unknown depthwise operator 'smal': did you mean 'small'"),
            (["--ops", "depthwise,"], "'depthwise,': write names with a comma between two of them"),
            (["--widths", "0.1,abc"], "'0.1,abc': write numbers with a comma between two of them"),
            (["--widths", "0.1,9"], "MobileNetV2 has no width 9"),
            (["--batch", "25"], "--batch 25: there are only 24 pictures"),
        ],
    )
    def test_what_cannot_be_trained_is_refused_before_anything_is(
        self, more: list[str], message: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import compare

        monkeypatch.setattr("sys.argv", ["compare.py", *words, *more])
        with pytest.raises(UsageError, match=message):
            compare.main()
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("word", [["--seeds", "0"], ["--epochs", "0"], ["--batch", "1"], ["--side", "-1"]])
    def test_numbers_that_are_too_small_are_refused(
        self, word: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import compare

        monkeypatch.setattr("sys.argv", ["compare.py", *words, *word])
        with pytest.raises(SystemExit, match="2"):
            compare.main()
        assert f"argument {word[0]}: '{word[1]}' is no whole number from " in capsys.readouterr().err

    def test_a_picture_of_a_pair_is_read_before_the_training(
        self, words: list[str], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import compare

        pictures = tmp_path / "pictures"
        shutil.copytree(drawn / "test", pictures)
        (_, damaged, *_) = sorted(pictures.rglob("*.png"))
        damaged.write_bytes(b"")
        monkeypatch.setattr("sys.argv", ["compare.py", *words, "--pictures", str(pictures)])
        with pytest.raises(DataError, match=damaged.name):
            compare.main()
        assert not (tmp_path / "out").exists()


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from script import run

    def fails(error: Exception) -> None:
        raise error

    in_worker = DataError(
        "Caught DataError in DataLoader worker process 0.\nTraceback\nerrors.DataError: a.png: wrong\n"
    )
    for error, told in ((UsageError("wrong"), "wrong"), (in_worker, "a.png: wrong")):
        with pytest.raises(SystemExit, match=str(error.exit_code)):
            run(partial(fails, error))
        assert capsys.readouterr().err == f"error: {told}\n"
