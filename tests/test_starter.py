"""The network that comes with the package: its file, its name, and what it says of itself."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fundus_seg import load_model
from fundus_seg.builtins import BACKGROUND, CUP
from fundus_seg.config import load_config, resolve_sources
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError
from fundus_seg.exchanged import read_header
from fundus_seg.inference import predict_folder
from fundus_seg.inference.members import find_members, is_model, models_and_photographs
from fundus_seg.inference.predict import Predictor
from fundus_seg.metrics import dice
from fundus_seg.phantom.varied import draw_varied
from fundus_seg.runs import model_names
from fundus_seg.runs.model_names import STARTER_FILE, STARTER_SHA256, model_path
from fundus_seg.runs.origin import origin_of, plain, why_not_unseen
from fundus_seg.training.start import check_start

UNSEEN = 7
"""A seed that the starter did not learn from."""


@pytest.fixture(scope="module")
def starter() -> Predictor:
    return load_model("starter")


class TestFile:
    def test_it_is_small_and_says_how_it_was_made(self) -> None:
        assert STARTER_FILE.stat().st_size <= 10_000_000
        assert file_digest(STARTER_FILE) == STARTER_SHA256
        assert (model_path("starter"), model_path(Path("./starter"))) == (STARTER_FILE, Path("starter"))
        said = read_header(STARTER_FILE)
        assert said["licence"] == "MIT"
        assert said["settings"]["preset"] == "starter"
        assert '"/' not in json.dumps(said)  # no path of the machine that made it
        assert {f"{domain}/train" for domain in "ABCD"} <= set(said["settings"]["inputs"])

    def test_the_preset_makes_such_a_network(self, starter: Predictor) -> None:
        config = load_config("starter", arguments={"holdout": "none"})
        assert config.network_spec() == starter.network.spec
        assert config.scoring == starter.scoring

    def test_another_file_in_its_place_is_refused(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(model_names, "STARTER_FILE", tmp_path / "starter.safetensors")
        with pytest.raises(CheckpointError, match=r"cannot be read .*; install fundus-seg again"):
            model_path("starter")
        (tmp_path / "starter.safetensors").write_bytes(STARTER_FILE.read_bytes()[:-1] + b"\1")
        with pytest.raises(CheckpointError, match="not the file that came with fundus-seg"):
            load_model("starter")


class TestName:
    def test_a_path_stands_for_itself(self) -> None:
        assert model_path("starter") == STARTER_FILE
        assert model_path("./starter") == Path("starter")
        assert model_path(STARTER_FILE) == STARTER_FILE

    def test_it_is_a_model_wherever_it_stands(self) -> None:
        assert is_model("starter")
        assert not is_model("./starter")
        assert models_and_photographs(["starter", "starter", "a.png"]) == (2 * [STARTER_FILE], [Path("a.png")])
        assert [member.digest for member in find_members(["starter"])] == [STARTER_SHA256]

    def test_what_trained_it_is_known(self) -> None:
        origin = origin_of("starter")
        assert (origin.path, origin.domains, origin.phantom) == ("starter", ("A", "B", "C", "D"), True)

    def test_a_run_starts_from_it_with_its_domain_unseen(self) -> None:
        wanted = load_config("starter", arguments={"holdout": "A", "model.start": "starter"})
        config = resolve_sources(wanted, ["A", "B"], where="here")
        assert check_start(config) == {}
        told = {"origin": plain(origin_of("starter")), "phantom": False}
        content = {"holdout": "A", "model": {"start": "starter"}, "inputs": {}, "provenance": told}
        assert why_not_unseen(content) == ""


class TestMasks:
    def test_drawn_eyes_that_it_has_not_seen(self, starter: Predictor) -> None:
        scores = []
        for domain in "ABCD":
            image, mask = draw_varied(domain, 0, UNSEEN)
            masks = starter(image)
            np.testing.assert_array_equal(masks, starter(image))
            scores.append([dice(masks[0], mask != BACKGROUND), dice(masks[1], mask == CUP)])
        disc, cup = np.mean(scores, axis=0)
        assert disc > 0.9
        assert cup > 0.5  # some cups cannot be seen

    def test_the_command_needs_no_network(self, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*arguments: object) -> None:
            raise OSError("no network")

        monkeypatch.setattr(socket.socket, "connect", refused)
        Image.fromarray(draw_varied("A", 0, UNSEEN)[0]).save(tmp_path / "eye.png")
        told = command("predict", "starter", tmp_path / "eye.png", "--out", tmp_path / "out", "--roi", "full").err
        assert "docs/starter.md says what was measured" in told
        assert "phantom_model" not in (tmp_path / "out" / "cases.csv").read_text("utf8")
        assert (tmp_path / "out" / "masks" / "eye.png").is_file()
        # So does the function that a notebook calls, and finds all done.
        assert predict_folder("starter", [tmp_path / "eye.png"], tmp_path / "out") == tmp_path / "out" / "cases.csv"
