"""Small data that looks like nothing but has the layout, and a cache that no test shares with the user."""

from __future__ import annotations

import os
import sys
import warnings

# Two test processes share two cores: with a second thread each, they would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A warning of the compiler about our C++ is an error here, though not where the package runs.
os.environ["CXX"] = f"{os.environ.get('CXX', 'c++')} -Wall -Wextra -Wpsabi -Werror"

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from drawn_masks import coded, eye, save
from PIL import Image
from predictions import Drawn

from fundus_seg.protocol import DOMAINS
from fundus_seg_cli.main import main

if TYPE_CHECKING:
    from torch import nn


class Printed(NamedTuple):
    """What a command printed to standard output and to standard error."""

    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all processes of a run, so that libraries are compiled and the phantom is drawn but once."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUNDUS_SEG_CACHE", str(shared / "cache"))
        patch.delenv("FUNDUS_SEG_DATA", raising=False)
        yield


def draw_case(rng: np.random.Generator, size: int) -> tuple[Image.Image, Image.Image]:
    """A photograph and its dofe-coded mask: a bright disc with a brighter cup on a dark ground."""
    rows, columns = np.mgrid[:size, :size] / size
    centre = rng.uniform(0.45, 0.55, size=2)
    distance = np.hypot(rows - centre[0], columns - centre[1])
    disc, cup = distance < rng.uniform(0.25, 0.3), distance < rng.uniform(0.1, 0.15)
    grey = 60 + 80 * disc + 80 * cup + rng.normal(0, 5, disc.shape)
    photograph = np.clip(grey[..., None] * [1.0, 0.7, 0.5], 0, 255).astype(np.uint8)
    mask = np.select([cup, disc], [0, 128], 255).astype(np.uint8)
    return Image.fromarray(photograph), Image.fromarray(mask)


@pytest.fixture
def draw_root(tmp_path: Path) -> Callable[..., Path]:
    """A function that draws a data root of simple photographs and gives its folder."""

    def draw(
        folder: str = "data", domains: Sequence[str] = "ABCD", train: int = 3, test: int = 4, size: int = 64
    ) -> Path:
        root = tmp_path / folder
        for domain in domains:
            rng = np.random.default_rng(ord(domain))
            for split, count in (("train", train), ("test", test)):
                rois = root / DOMAINS[domain].folder / split / "ROIs"
                (rois / "image").mkdir(parents=True)
                (rois / "mask").mkdir()
                for number in range(count):
                    photograph, mask = draw_case(rng, size)
                    photograph.save(rois / "image" / f"{domain}{split}{number}.png")
                    mask.save(rois / "mask" / f"{domain}{split}{number}.png")
        return root

    return draw


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three dofe-coded masks."""
    for number in range(3):
        save(tmp_path / "truth" / f"eye{number}.png", coded(eye(number), 255, 128, 0))
    return tmp_path / "truth"


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Printed]:
    """A function that runs `fundus-seg` in this process, in the test's folder, and checks its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # the command line sets its own

    def run(*arguments: object, code: int = 0) -> Printed:
        monkeypatch.setattr(sys, "argv", ["fundus-seg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = Printed(*capsys.readouterr())
        assert (stopped.value.code or 0) == code, printed.err
        return printed

    return run


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and an empty cache of the Hub, whose folder it gives."""

    from fundus_seg.models import encoders

    def no_network() -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr(encoders, "get_session", no_network)
    monkeypatch.setattr(encoders.hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def network() -> nn.Module:
    """A small network that was never trained."""
    import torch

    from fundus_seg.config import load_config
    from fundus_seg.models import build_model

    torch.manual_seed(0)
    encoder = load_config("tiny", arguments={"holdout": "A"}).model.encoder
    return build_model(
        "tvconv", encoder=encoder, image_size=64, aspp_channels=8, expansion=1, generator_channels=4
    ).eval()  # fmt: skip


@pytest.fixture
def checkpoint(network: nn.Module, tmp_path: Path) -> Path:
    """The checkpoint of a small network."""
    from fundus_seg.models.checkpoint import network_state, write_checkpoint

    usage = {"image_interpolation": "lanczos", "scoring": {}}
    write_checkpoint(tmp_path / "model.ckpt", network_state(network, usage))
    return tmp_path / "model.ckpt"


@pytest.fixture
def photographs(draw_root: Callable[..., Path]) -> Path:
    """A folder with four photographs in `image` and their masks in `mask`."""
    return draw_root(size=90) / "Domain1/test/ROIs"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Drawn]:
    """A function that makes `predict_folder` take a drawn model."""

    def draw(**how: Any) -> Drawn:
        model = Drawn(**how)
        monkeypatch.setattr("fundus_seg.inference.predict.load_model", lambda path, **_: model)
        return model

    return draw


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, as in a terminal: the background jobs of a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
