"""A network as ONNX: the same masks as torch's, of plain operations, in a folder that runs without this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from predictions import Told, rows_of
from torch import Tensor, nn

from fundus_seg import load_model
from fundus_seg.builtins import OPERATORS
from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError, FundusSegError, UsageError
from fundus_seg.inference import onnx_eight_bits, onnx_export, onnx_samples, standalone
from fundus_seg.inference.calibration import Calibration, write_calibration
from fundus_seg.inference.ensemble import load_ensemble
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.members import find_members, is_model
from fundus_seg.inference.onnx_export import export_onnx
from fundus_seg.inference.onnx_network import OnnxNetwork
from fundus_seg.inference.postprocess import clean
from fundus_seg.models import build_model
from fundus_seg.models.blocks import conv2d
from fundus_seg.models.checkpoint import network_state, write_checkpoint
from fundus_seg.models.onnx_graph import OPSET, to_onnx
from fundus_seg.models.operators import BranchSettings
from fundus_seg.ops.compared import CondConv2d
from fundus_seg.phantom.make import draw_case
from fundus_seg.plugins import find
from fundus_seg.protocol import Scoring

ROOT = Path(__file__).parents[1]
SHAPE: dict[str, Any] = {"image_size": 64, "aspp_channels": 8, "expansion": 1, "generator_channels": 4}
SMALL = "tu-test_resnet"
OF_ONE_NUMBER = {"condconv", "weightnet", "dyconv-dw"}
"""Operators whose graph takes one number of photographs alone: they convolve image by image."""
USAGE: dict[str, Any] = {
    "image_interpolation": "lanczos",
    "scoring": Scoring(threshold=0.5).model_dump(),
    "phantom": True,
}
PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
RUN = "runs/paper/none/tvconv/seed-0"


def network_of(op: str, encoder: str) -> nn.Module:
    """A network with random weights, whose norms fit what they see."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(op, encoder=encoder, **SHAPE)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.rand(4, 3, 64, 64) * 2 - 1)
    return network.eval()


def as_large(graph: onnx.ModelProto, network: nn.Module) -> float:
    """The largest difference of the logits of one, and of three photographs."""
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    exported = OnnxNetwork(graph.SerializeToString(), network.spec)  # type: ignore[arg-type]
    with torch.no_grad():
        pairs = [(network(each), exported(each)) for each in (images[:1], images)]
    return max(float((one - other).abs().max()) for one, other in pairs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: a small network, its calibration, and a trust.json."""
    folder = tmp_path_factory.mktemp("onnx") / RUN
    checkpoint = folder / "checkpoints/best.ckpt"
    write_checkpoint(checkpoint, network_state(network_of("tvconv", SMALL), USAGE))
    (folder / "TRAINED").touch()
    fitted = Calibration(
        checkpoint_sha256=file_digest(checkpoint), disc=1.5, cup=2.0, domains={}, data={}, size=64, versions={}
    )
    write_calibration(folder, fitted)
    return folder


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def exported(run: Path, told: Told) -> Path:
    """The run's network as ONNX; the run is given a trust.json meanwhile."""
    (run / "trust.json").touch()
    written = export_onnx(run, run.with_name("deployed"), {"licence": "CC0"}, progress=told)
    (run / "trust.json").unlink()
    return written


@pytest.fixture
def deployed(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def quick(exported: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The graph, which an export gets without being made again; it is checked on a small photograph."""
    graph = onnx.load(exported / "model.onnx")
    monkeypatch.setattr(onnx_export, "to_onnx", lambda network: graph)
    monkeypatch.setattr(onnx_samples, "draw_case", lambda *_: (PHOTOGRAPH, None))
    monkeypatch.setattr(onnx_samples, "_PHANTOMS", 1)
    return graph


@pytest.fixture
def crops(tmp_path: Path) -> Iterator[Path]:
    """Crops of several forms and sizes."""
    folder = tmp_path / "crops"
    folder.mkdir()
    eyes = [Image.fromarray(draw_case(domain, 0, 3)[0]) for domain in "AB"]
    eyes[0].resize((301, 240)).save(folder / "left.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    eyes[1].resize((200, 333)).save(folder / "right.jpg", exif=turned)
    eyes[1].resize((64, 64)).quantize(64).save(folder / "palette.png")
    eyes[0].resize((90, 90)).convert("L").save(folder / "grey.tif")
    yield folder


class TestTheGraph:
    def test_it_has_plain_operations_alone(self, exported: Path) -> None:
        graph = onnx.load(exported / "model.onnx")
        onnx.checker.check_model(graph)
        assert [(each.domain, each.version) for each in graph.opset_import] == [("", OPSET)]
        assert not graph.functions
        used = {node.op_type for node in graph.graph.node}
        assert used <= {
            "Add", "AveragePool", "Clip", "Concat", "Conv", "Expand", "MaxPool", "Mul", "Pad", "ReduceMean", "Relu",
            "Resize", "Shape", "Slice",
        }  # fmt: skip
        batch, *shape = graph.graph.input[0].type.tensor_type.shape.dim
        assert (batch.dim_param, [each.dim_value for each in shape]) == ("batch", [3, 64, 64])

    def test_it_tells_no_path_and_no_source(self, exported: Path) -> None:
        content = (exported / "model.onnx").read_bytes()
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content
        assert b"torch.nn" not in content

    @pytest.mark.slow
    def test_operators_are_written(self) -> None:
        seen = {"tvconv", "untied"}  # that of `exported`; and as `linear`
        others = [op for op in OPERATORS if op not in seen | OF_ONE_NUMBER]

        class Branches(nn.Module):
            """Operators side by side, which takes one export; 8 channels, since a layer norm of 2 is but a sign."""

            def __init__(self) -> None:
                super().__init__()
                self.spec = {"op": "all", "encoder": "none", "image_size": 64}
                self.stem = nn.Conv2d(3, 4, 16, stride=16)
                settings = BranchSettings((4, 4), 1, 4)
                self.branches = nn.ModuleList(find("operator", op, OPERATORS)(4, 8, 6, settings) for op in others)

            def forward(self, x: Tensor) -> Tensor:
                deep = self.stem(x)
                return torch.cat([branch(deep) for branch in self.branches], dim=1)

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Branches().eval()
        assert as_large(to_onnx(network), network) < 1e-3

    def test_convolutions_of_each_image_are_refused_by_name(self) -> None:
        network: Any = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), CondConv2d(4), nn.Conv2d(4, 2, 1)).eval()
        network.spec = {"op": "condconv", "encoder": "none", "image_size": 16}
        with pytest.raises(FundusSegError, match="operator condconv with encoder none: its graph takes one number of"):
            to_onnx(network)

    def test_what_cannot_be_written_is_refused_by_name(self) -> None:
        library = torch.library.Library("fundus_seg_test", "FRAGMENT")
        library.define("mine(Tensor x) -> Tensor")
        library.impl("mine", lambda x: x + 1, "CompositeExplicitAutograd")
        torch.library.register_fake("fundus_seg_test::mine", torch.empty_like, lib=library)

        class Mine(nn.Module):
            spec = {"op": "mine:block", "encoder": "none", "image_size": 16}  # noqa: RUF012

            def forward(self, x: Tensor) -> Tensor:
                return torch.ops.fundus_seg_test.mine(x)  # type: ignore[no-any-return]

        with pytest.raises(
            FundusSegError, match=r"^operator mine:block with encoder none: cannot be .*[^\n]*as torch$"
        ):
            to_onnx(Mine())

    def test_more_than_a_file_holds_is_refused_by_name(self) -> None:
        with torch.device("meta"):
            huge: Any = conv2d(2**15, 2**15)
        huge.spec = {"op": "wide", "encoder": "large", "image_size": 64}
        with pytest.raises(FundusSegError, match="operator wide with encoder large: more than 2 GiB"):
            to_onnx(huge)

    @pytest.mark.slow
    @pytest.mark.parametrize("op", [op for op in OPERATORS if op not in OF_ONE_NUMBER])
    def test_a_whole_network_of_every_operator(self, op: str) -> None:
        network = network_of(op, "mobilenet_v2")
        assert as_large(to_onnx(network), network) < 1e-3

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "encoder",
        ["tu-mobilenetv2_035", "resnet18", "tu-tf_efficientnet_lite0", "tu-convnext_atto", "tu-test_vit",
         "tu-vit_small_patch14_dinov2", "tu-vit_small_patch16_dinov3"],
    )  # fmt: skip
    def test_a_whole_network_of_some_encoders(self, encoder: str) -> None:
        network = network_of("tvconv", encoder)
        assert as_large(to_onnx(network), network) < 1e-3


class TestTheFolder:
    def test_what_lies_in_it(self, exported: Path, run: Path, told: Told) -> None:
        assert sorted(each.name for each in exported.iterdir()) == ["LICENSE", "model.json", "model.onnx", "predict.py"]
        said = json.loads((exported / "model.json").read_text("utf8"))
        assert said["digests"] == {
            "checkpoint": file_digest(run / "checkpoints/best.ckpt"),
            **{name: file_digest(exported / name) for name in ("LICENSE", "model.onnx", "predict.py")},
        }
        assert (said["opset"], said["precision"], said["licence"], said["usage"]) == (OPSET, "fp32", "CC0", USAGE)
        assert said["input"]["shape"] == ["batch", 3, 64, 64]
        assert said["calibration"]["cup"] == 2.0
        assert said["checked"]["photographs"] == 8
        assert said["checked"]["largest_difference"] < 1e-4
        assert said["origin"]["path"] == "seed-0"
        assert "not a medical device" in said["card"]
        licence = (exported / "LICENSE").read_text("utf8")
        assert licence.startswith("model.onnx: CC0\n")
        assert (ROOT / "LICENSE").read_text("utf8") in licence
        assert "ms as ONNX" in told.text
        assert "left out: 1 file, of predicted scores" in told.text

    @pytest.mark.slow
    def test_equal_networks_give_equal_bytes(self, exported: Path, run: Path, tmp_path: Path) -> None:
        again = export_onnx(run, tmp_path / "again", {"licence": "CC0"})
        for file in exported.iterdir():
            assert (again / file.name).read_bytes() == file.read_bytes()

    def test_the_script_is_short_and_needs_little(self) -> None:
        text = Path(standalone.__file__).read_text("utf8")
        assert len(text.splitlines()) <= 60
        imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
        assert imported - sys.stdlib_module_names == {"cv2", "numpy", "onnxruntime", "PIL"}

    def test_a_network_that_is_not_the_same_is_not_kept(self, run: Path, tmp_path: Path, quick: Any) -> None:
        last = [node for node in quick.graph.node if node.op_type == "Conv"][-1]
        weight = next(each for each in quick.graph.initializer if each.name == last.input[1])
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        with pytest.raises(FundusSegError, match=r"is not the one in torch: probabilities differ by \d\.\de-0[23]"):
            export_onnx(run, tmp_path / "deep/out")
        assert list(tmp_path.iterdir()) == []

    def test_what_cannot_be_one_is_refused(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full/mine").touch()
        with pytest.raises(FundusSegError, match="full: exists and is not an empty folder"):
            export_onnx(run, tmp_path / "full")
        with pytest.raises(UsageError, match="digests: the file uses this name itself"):
            export_onnx(run, tmp_path / "out", {"digests": "mine"})
        native = {**USAGE, "scoring": {"inference": "native"}}
        write_checkpoint(tmp_path / "native.ckpt", network_state(network_of("conv", SMALL), native))
        with pytest.raises(UsageError, match=r"native\.ckpt: sees photographs at their own size"):
            export_onnx(tmp_path / "native.ckpt", tmp_path / "out")
        monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
        with pytest.raises(UsageError, match=r'pip install "fundus-seg\[onnx\]"$'):
            export_onnx(run, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_anatomical_masks_are_left_to_the_package(self, run: Path, tmp_path: Path, quick: Any) -> None:
        content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
        content["usage"]["scoring"]["anatomical"] = True
        write_checkpoint(tmp_path / "round.ckpt", content)
        progress = Told()
        out = export_onnx(tmp_path / "round.ckpt", tmp_path / "out", progress=progress)
        assert "left out: 1 file, which makes no anatomical masks" in progress.text
        assert not (out / "predict.py").exists()
        assert load_model(out).scoring.anatomical


class TestPredicting:
    def test_it_predicts_as_torch_does(self, exported: Path, run: Path, crops: Path) -> None:
        original, predictor = load_model(run), load_model(exported)
        assert (predictor.size, predictor.scoring, predictor.phantom) == (64, original.scoring, True)
        for path in crops.iterdir():
            image = np.asarray(Image.open(path).convert("RGB"))
            np.testing.assert_allclose(predictor.probabilities(image), original.probabilities(image), atol=1e-4)
            assert (predictor(image) == original(image)).mean() >= 0.9999

    def test_without_torch_and_this_package(self, exported: Path, run: Path, crops: Path, tmp_path: Path) -> None:
        hook = (
            "import runpy, sys; script, *sys.argv = sys.argv[1], *sys.argv[1:]\n"
            "class Refuse:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.partition('.')[0] in ('torch', 'fundus_seg', 'fundus_seg_cli', 'scipy', 'pandas'):\n"
            "            raise ImportError(name)\n"
            "sys.meta_path.insert(0, Refuse()); runpy.run_path(script, run_name='__main__')"
        )
        command = [sys.executable, "-c", hook, exported / "predict.py", *crops.iterdir(), "--out", tmp_path / "masks"]
        subprocess.run(command, check=True, cwd=tmp_path)
        out = tmp_path / "torch"
        predict_folder(run, [crops], out)
        for path in crops.iterdir():
            own, other = (
                np.asarray(Image.open(each / f"{path.stem}.png")) for each in (tmp_path / "masks", out / "masks")
            )
            assert own.shape == other.shape
            assert (own == other).mean() >= 0.9999
            assert 0 < (other != 255).mean() < 1

    @pytest.mark.parametrize(("largest", "fill"), [(True, True), (True, False), (False, True), (False, False)])
    def test_the_script_cleans_as_the_package_does(self, largest: bool, fill: bool) -> None:
        for seed in range(40):
            mask = np.random.default_rng(seed).random((12, 15)) < (0.0, 0.2, 0.45, 0.7)[seed % 4]
            assert (standalone._clean(mask, largest, fill) == clean(mask[None], largest=largest, fill=fill)[0]).all()

    def test_the_script_tells_what_it_cannot_read(self, exported: Path, tmp_path: Path) -> None:
        Image.fromarray(np.full((20, 20), 1000, np.uint16)).save(tmp_path / "deep.png")
        with pytest.raises(ValueError, match="more than 8 bits"):
            standalone._read(tmp_path / "deep.png")
        (tmp_path / "text.png").write_text("no picture")
        command = [sys.executable, exported / "predict.py", tmp_path / "text.png", "--out", tmp_path / "masks"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 1
        assert re.fullmatch(r"error: [^\n]*text\.png: cannot identify[^\n]*\n", ran.stderr)

    def test_it_is_a_model_among_others(self, exported: Path, run: Path, crops: Path) -> None:
        assert is_model(exported)
        members = find_members([exported, run])
        assert [member.path for member in sorted(members, key=lambda each: str(each.path))] == [exported, run]
        assert all(member.calibration and member.calibration.cup == 2.0 for member in members)
        both, image = load_ensemble([exported, run]), np.asarray(Image.open(crops / "left.png"))
        np.testing.assert_allclose(both.probabilities(image), load_model(run).probabilities(image), atol=1e-4)

    def test_a_folder_with_weights_is_a_model(self, run: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
        out = tmp_path / "weights"
        assert command("export", run, "--format", "torch", "--out", out).out == f"{out / 'model.safetensors'}\n"
        assert is_model(out)
        assert load_model(out).size == 64

    def test_what_it_cannot_do_is_refused(
        self, exported: Path, run: Path, crops: Path, command: Callable[..., Any]
    ) -> None:
        for how in ({"precision": "bf16"}, {"scoring": Scoring(inference="native")}):
            with pytest.raises(UsageError, match="deployed: ONNX, of one size and precision"):
                load_model(exported, **how)  # type: ignore[arg-type]
        onnx_only = "deployed: a network as ONNX, which only predicts; give the run"
        assert onnx_only in command("export", exported, "--out", "again.safetensors", code=1).err
        train = ("train", "--config", "tiny", "--data", "phantom", "--holdout", "A")
        assert onnx_only in command(*train, "--from", exported, code=1).err
        declining = command("predict", exported, crops, "--out", "masks", "--decline-below", "0.5", code=2)
        assert "needs a calibrated trust" in declining.err

    @pytest.mark.parametrize("damage", ["card", "text", "cut", "graph", "size", "usage"])
    def test_a_damaged_one_is_one_line(self, deployed: Path, damage: str) -> None:
        card, graph = deployed / "model.json", deployed / "model.onnx"
        said = json.loads(card.read_text("utf8"))
        if damage == "card":
            card.unlink()
        elif damage == "text":
            card.write_text("[]")
        elif damage == "cut":
            graph.write_bytes(graph.read_bytes()[:-1])
        else:
            graph.write_bytes(b"no graph" if damage == "graph" else graph.read_bytes())
            changed = {"size": {"model_spec": {**said["model_spec"], "image_size": 32}}, "usage": {"usage": {}}}
            digests = {"digests": {"model.onnx": file_digest(graph)}}
            card.write_text(json.dumps({**said, **digests, **changed.get(damage, {})}))
        with pytest.raises(CheckpointError, match=r"^[^\n]*copy[^\n]*: [^\n]*$"):
            load_model(deployed)


class TestEightBits:
    @pytest.mark.slow
    def test_it_is_smaller_and_scores_the_same(
        self, run: Path, exported: Path, photographs: Path, tmp_path: Path, quick: Any
    ) -> None:
        progress = Told()
        given: dict[str, Any] = {"photographs": [photographs / "image"], "truth": [str(photographs / "mask")]}
        out = export_onnx(run, tmp_path / "small", **given, int8=True, progress=progress)
        assert (out / "model.onnx").stat().st_size < 0.5 * (exported / "model.onnx").stat().st_size
        said = json.loads((out / "model.json").read_text("utf8"))
        assert (said["precision"], said["checked"]["on"], said["checked"]["photographs"]) == (
            "int8",
            "the given photographs",
            4,
        )
        assert set(said["checked"]["dice"]["after"]) == {"disc", "cup"}
        assert "mean Dice in 8 bits, on 4 photographs: disc" in progress.text
        assert load_model(out)(np.zeros((70, 90, 3), np.uint8)).shape == (2, 70, 90)

    def test_what_loses_too_much_is_not_kept(
        self, run: Path, photographs: Path, tmp_path: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores = iter([{"disc": 90.0, "cup": 80.0}, {"disc": 90.0, "cup": 79.69}])
        monkeypatch.setattr(onnx_eight_bits, "mean_dice", lambda *_: next(scores))
        monkeypatch.setattr(onnx_export, "in_eight_bits", lambda graph, samples: graph)
        with pytest.raises(FundusSegError, match=r"the mean Dice of the cup is 79\.69, not 80\.00"):
            export_onnx(
                run,
                tmp_path / "small",
                photographs=[photographs / "image"],
                truth=[str(photographs / "mask")],
                int8=True,
            )
        assert not (tmp_path / "small").exists()

    def test_it_needs_photographs_with_true_masks(self, run: Path, tmp_path: Path) -> None:
        for given in ({"int8": True}, {"int8": True, "truth": ["masks"]}, {"truth": ["masks"]}):
            with pytest.raises(UsageError, match="--int8 is calibrated on --photographs with their --truth"):
                export_onnx(run, tmp_path / "out", **given)  # type: ignore[arg-type]


class TestTheCommand:
    def test_arguments(self, run: Path, command: Callable[..., Any]) -> None:
        assert "give one place to write to, as --out DIR" in command("export", run, code=2).err
        assert "give one place" in command("export", run, "a.safetensors", "--out", "b.safetensors", code=2).err
        assert "are for --format onnx" in command("export", run, "--out", "a", "--int8", code=2).err

    def test_the_page_is_true(
        self, run: Path, crops: Path, photographs: Path, tmp_path: Path, command: Callable[..., Any], quick: Any
    ) -> None:
        page = (ROOT / "docs/deploy.md").read_text("utf8")
        shell, python = (re.findall(rf"```{name}\n(.*?)```", page, re.DOTALL) for name in ("sh", "python"))
        shutil.copytree(run, tmp_path / RUN)
        Image.open(crops / "right.jpg").save(crops / "right.png")
        shutil.copytree(photographs / "image", tmp_path / "photos")
        shutil.copytree(photographs / "mask", tmp_path / "masks")
        for line in "".join(shell).splitlines():
            name, *arguments = line.replace('"', "").split()
            if name == "fundus-seg":
                command(*arguments)
            elif name == "python":
                subprocess.run([sys.executable, *arguments], check=True, cwd=tmp_path)
            else:
                assert line == 'pip install "fundus-seg[onnx]"'
        assert {each.name for each in (tmp_path / "masks").iterdir()} >= {"left.png", "right.png"}
        assert len(rows_of(tmp_path / "predictions/cases.csv")) == 4
        assert (tmp_path / "small/model.onnx").stat().st_size < (tmp_path / "deployed/model.onnx").stat().st_size
        (block,) = python
        made: dict[str, Any] = {}
        exec(block, made)
        assert made["disc"].shape == made["cup"].shape == (240, 301)
