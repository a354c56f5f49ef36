from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from fundus_seg.builtins import BACKGROUND
from fundus_seg.data.layout import open_root
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, UsageError
from fundus_seg.evaluation import localised
from fundus_seg.evaluation.localised import make_localiser, measure
from fundus_seg.inference.localise import CLOSE, FoundDisc, Localiser, localiser
from fundus_seg.inference.roi import LOCALISER, NO_EYE, TWO_DISCS
from fundus_seg.models.localiser import LOOK, SHIPPED, STRIDE, LocaliserNet, load_localiser
from fundus_seg.phantom.frames import draw_frame
from fundus_seg.phantom.make import draw_case
from fundus_seg.training.localiser import Effort


class Bright(torch.nn.Module):
    """Takes what is white for disc; remembers how much of each look that was."""

    def __init__(self):
        super().__init__()
        self.shares = []

    def forward(self, x):
        white = torch.nn.functional.avg_pool2d((x.mean(1, keepdim=True) > 0.7).float(), STRIDE)[:, 0]
        self.shares.append(float(white.mean()))
        return 12 * white - 6


def photograph(*discs, size=(300, 450)):
    image = np.full((*size, 3), 60, np.uint8)
    for x, y, radius in discs:
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1)
    return image


class TestLooks:
    """With a network that knows what to look for."""

    @pytest.mark.parametrize("disc", [(100, 150, 20), (400, 50, 12), (225, 150, 120), (10, 290, 25)])
    def test_a_disc_is_measured_in_the_photograph_s_pixels(self, disc):
        x, y, radius = disc
        image = photograph(disc)
        found = Localiser(Bright())(image)
        if x > radius:  # else the photograph cuts it
            np.testing.assert_allclose((found.x, found.y), (x + 0.5, y + 0.5), atol=2)
            np.testing.assert_allclose(found.diameter, 2 * np.sqrt((image[..., 0] == 255).sum() / np.pi), rtol=0.06)

    def test_the_close_look_frames_the_disc(self):
        network = Bright()
        Localiser(network)(photograph((100, 150, 20)))
        assert 2 * np.sqrt(network.shares[-1] / np.pi) == pytest.approx(CLOSE[-1], rel=0.1)

    def test_nothing_and_two_are_not_found(self):
        assert Localiser(Bright())(photograph()) == NO_EYE
        assert Localiser(Bright())(photograph((100, 150, 20), (300, 150, 20))) == TWO_DISCS

    def test_of_two_bright_spots_that_which_a_close_look_confirms_is_the_disc(self):
        class Wary(Bright):
            """Takes for no disc what it has looked at closely and seen a black border around."""

            def forward(self, x):
                logits = super().forward(x)
                return logits - 100 if len(self.shares) > 1 and x.min() < -0.9 else logits

        image = photograph((300, 150, 20))
        cv2.circle(image, (100, 150), 28, (0, 0, 0), -1)
        cv2.circle(image, (100, 150), 20, (255, 255, 255), -1)
        assert Localiser(Bright())(image) == TWO_DISCS
        assert Localiser(Wary())(image).x == pytest.approx(300.5, abs=2)

    def test_threads_do_not_change_torch_s_number_of_them(self):
        before, found = torch.get_num_threads(), []
        image = photograph((100, 150, 20))
        find = Localiser(Bright())
        threads = [threading.Thread(target=lambda: found.append(find(image))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == before
        assert found == 3 * [find(image)]


class TestShipped:
    """The weights that come with the package."""

    def test_it_is_small_and_says_how_it_was_made(self):
        assert SHIPPED.stat().st_size < 300_000
        assert file_digest(SHIPPED) == LOCALISER
        with safe_open(SHIPPED, "pt") as file:
            assert {"holdout", "frames", "steps", "seed"} <= set(file.metadata())

    def test_it_finds_discs_of_frames_by_a_camera_that_it_has_not_seen(self):
        with safe_open(SHIPPED, "pt") as file:
            holdout = file.metadata()["holdout"]
        drawn = (draw_frame(holdout, index, 3) for index in range(8))
        assert measure(localiser(), ((image, mask != BACKGROUND) for image, mask in drawn)).right >= 7

    def test_crops_are_recognised(self):
        for domain in "ABCD":
            image, mask = draw_case(domain, 1, 5)
            wanted = 2 * np.sqrt((mask != BACKGROUND).sum() / np.pi)
            assert localiser()(image).diameter == pytest.approx(wanted, rel=0.3)

    @pytest.mark.parametrize("kind", ["black", "white", "noise", "tiny", "layers", "text"])
    def test_what_shows_no_eye_has_no_disc(self, kind):
        rng = np.random.default_rng(0)
        image = np.full((300, 400, 3), 255 if kind in ("white", "text") else 0, np.uint8)
        if kind == "noise":
            image = rng.integers(0, 256, image.shape, dtype=np.uint8)
        elif kind == "tiny":
            image = np.full((20, 20, 3), 90, np.uint8)
        elif kind == "layers":
            for row in range(100, 220, 15):
                cv2.line(image, (0, row), (399, row + 5), (int(rng.integers(60, 255)),) * 3, 7)
        elif kind == "text":
            for row in range(20, 300, 20):
                cv2.putText(image, "Optic disc report 0123", (5, row), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0))
        assert localiser()(image) == NO_EYE

    def test_a_file_of_something_else_is_named(self, tmp_path):
        (tmp_path / "x.safetensors").write_bytes(b"nothing")
        with pytest.raises(CheckpointError, match=r"x.safetensors: not the weights of a localiser"):
            load_localiser(tmp_path / "x.safetensors")


class TestTraining:
    EFFORT = Effort(frames=1, steps=10, batch=2)

    @pytest.fixture
    def small(self, monkeypatch):
        """Frames and crops of few pixels, few of which are measured."""
        monkeypatch.setattr(localised, "_MEASURED", 2)
        for module in ("fundus_seg.training.localiser", "fundus_seg.evaluation.localised"):
            monkeypatch.setattr(f"{module}.draw_frame", lambda *arguments, most=100: draw_frame(*arguments, most=100))

    def test_the_file_is_what_its_arguments_make(self, small, tmp_path):
        for name, workers in (("one", 0), ("two", 2)):
            measured = make_localiser(tmp_path / name, Effort(1, 10, 2, workers), holdout="B", seed=4)
        one, two = (load_localiser(tmp_path / name).state_dict() for name in ("one", "two"))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert [each.count for each in measured.values()] == [2]
        with safe_open(tmp_path / "one", "pt") as file:
            about = file.metadata()
        assert [about[name] for name in ("holdout", "frames", "steps", "batch", "seed")] == ["B", "1", "10", "2", "4"]
        assert json.dumps(about).count("crops right") == 1

    def test_true_frames_are_learnt_from_and_measured(self, small, draw_root, tmp_path):
        root = open_root(draw_root(size=90))
        without = make_localiser(tmp_path / "one", self.EFFORT, holdout="B")
        measured = make_localiser(tmp_path / "two", self.EFFORT, holdout="B", root=root)
        assert measured.keys() - without.keys() == set(root.domains)
        one, two = (load_localiser(tmp_path / name).state_dict() for name in ("one", "two"))
        assert not torch.equal(one["head.weight"], two["head.weight"])

    def test_an_unknown_holdout_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="phantom domain"):
            make_localiser(tmp_path / "one", self.EFFORT, holdout="X")

    def test_what_is_measured(self):
        disc = np.zeros((100, 100), bool)
        disc[40:61, 40:61] = True
        image = np.zeros((100, 100, 3), np.uint8)
        wanted = 2 * np.sqrt(disc.sum() / np.pi)
        for found, right in (
            (FoundDisc(50.5, 50.5, wanted, 1), 1),
            (FoundDisc(50.5, 50.5, 1.2 * wanted, 1), 1),
            (FoundDisc(50.5, 50.5, 1.4 * wanted, 1), 0),
            (FoundDisc(70, 50.5, wanted, 1), 0),
        ):
            assert measure(lambda _, found=found: found, [(image, disc)]).right == right
        missed = measure(lambda _: NO_EYE, [(image, disc)])
        assert (missed.count, missed.found, missed.right) == (1, 0, 0)


def test_the_network_gives_a_quarter_of_what_it_sees():
    assert LocaliserNet()(torch.zeros(2, 3, LOOK, LOOK)).shape == (2, LOOK // STRIDE, LOOK // STRIDE)
