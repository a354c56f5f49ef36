"""The controls of TVConv: what each keeps, what each gives up, and that each can be trained, evaluated and tabled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from fundus_seg.builtins import OPERATORS
from fundus_seg.config import load_config
from fundus_seg.data.layout import open_root
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.models.blocks import AddCoords, conv2d, count_parameters, depthwise, inverted_residual
from fundus_seg.models.operators import BranchSettings
from fundus_seg.ops import LinearTVConv2d, UntiedConv2d, translation_variant_conv2d
from fundus_seg.plugins import find
from fundus_seg.reporting import score_table
from fundus_seg.runs.folder import find_runs
from fundus_seg.training import train
from fundus_seg_cli.main import app

SETTINGS = BranchSettings(size=(4, 5), expansion=2, generator_channels=8)
PER_POSITION = (UntiedConv2d, LinearTVConv2d)
PerPosition = Callable[..., UntiedConv2d | LinearTVConv2d]


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def branch(
    op: str, settings: BranchSettings = SETTINGS, *, in_channels: int = 3, out_channels: int = 7, rate: int = 6
) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = find("operator", op, OPERATORS)(in_channels, out_channels, rate, settings)
    return module


class TestKernelsPerPosition:
    """`untied` and `linear`: the two simpler ways to a kernel per position."""

    @pytest.mark.parametrize("kind", PER_POSITION)
    @pytest.mark.parametrize("kernel_size", [3, 5])
    def test_start_as_a_depthwise_convolution(self, kind: PerPosition, kernel_size: int) -> None:
        torch.manual_seed(0)
        layer, x = kind(64, (4, 5), kernel_size), images(2, 64, 4, 5)
        assert layer.kernel().shape == (64, kernel_size**2, 4, 5)
        shared = layer.kernel()[:, :, 0, 0].reshape(64, 1, kernel_size, kernel_size)
        torch.testing.assert_close(layer(x), F.conv2d(x, shared, padding=kernel_size // 2, groups=64))
        he_normal = conv2d(64, 64, kernel_size, groups=64).weight
        assert shared.std().item() == pytest.approx(he_normal.std().item(), rel=0.15)

    @pytest.mark.parametrize("kind", PER_POSITION)
    def test_any_kernels_are_applied_where_they_stand(self, kind: PerPosition) -> None:
        layer, x = kind(3, (4, 5)), images(2, 3, 4, 5)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()
        torch.testing.assert_close(layer(x), translation_variant_conv2d(x, layer.kernel()))
        assert layer.kernel().std(dim=(2, 3)).min() > 0

    def test_the_linear_kernel_is_equation_3(self) -> None:
        layer = LinearTVConv2d(2, (4, 5), affinity_channels=3)
        with torch.no_grad():
            layer.affinity_maps.normal_()
        b, a = layer.basis.reshape(2 * 9, 3), layer.affinity_maps.reshape(3, 4 * 5)
        torch.testing.assert_close(layer.kernel(), (b @ a).reshape(2, 9, 4, 5))
        assert count_parameters(layer) == 2 * 9 * 3 + 3 * 4 * 5
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.kernel().dtype == torch.float32

    @pytest.mark.parametrize("kind", PER_POSITION)
    def test_training_tells_positions_apart(self, kind: PerPosition) -> None:
        torch.manual_seed(0)
        layer, x, goal = kind(3, (4, 5)), images(2, 3, 4, 5), images(2, 3, 4, 5).flip(3)
        before = [p.detach().clone() for p in layer.parameters()]
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (layer(x) - goal).square().sum().backward()
            optimizer.step()
        for parameter, start in zip(layer.parameters(), before, strict=True):
            # Kernels lie partly outside the map: at a corner, four taps of nine read an image.
            assert ((parameter != start).float().mean() > 0.7).item()
        assert layer.kernel().std(dim=(2, 3)).min() > 0

    def test_the_columns_of_the_linear_factors_part(self) -> None:
        """A' starts with equal rows: its gradients differ at once, those of B' from the second step on."""
        torch.manual_seed(0)
        layer, x = LinearTVConv2d(3, (4, 5)), images(2, 3, 4, 5)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
        rows, columns = layer.affinity_maps.grad, layer.basis.grad
        assert rows is not None
        assert columns is not None
        for first, second in ((0, 1), (1, 2), (2, 3)):
            assert not torch.allclose(rows[first], rows[second])
            assert not torch.allclose(columns[..., first], columns[..., second])

    @pytest.mark.parametrize("kind", PER_POSITION)
    def test_other_sizes_are_refused(self, kind: PerPosition) -> None:
        name = kind.__name__  # type: ignore[attr-defined]
        with pytest.raises(
            ValueError, match=rf"{name} was built for 4x5 feature maps, got 5x3: pass size=\(5, 3\), or"
        ):
            kind(3, (4, 5))(images(1, 3, 5, 3))
        with pytest.raises(ValueError, match="kernel_size must be odd, got 4: pass 5"):
            kind(3, (4, 5), 4)
        assert str(kind(3, (4, 5))) == f"{name}(3, size=(4, 5), kernel_size=3, stride=1)"


class TestCoordinates:
    def test_run_from_minus_one_to_one(self) -> None:
        x = images(2, 3, 2, 3)
        with_coordinates = AddCoords()(x)
        assert torch.equal(with_coordinates[:, :3], x)
        for image in with_coordinates:
            assert image[3:].tolist() == [[[-1, -1, -1], [1, 1, 1]], [[-1, 0, 1], [-1, 0, 1]]]
        assert AddCoords()(x.bfloat16()).dtype == torch.bfloat16
        assert AddCoords()(images(1, 3, 1, 1)).shape == (1, 5, 1, 1)

    def test_coordconv_alone_of_the_shared_kernels_knows_its_position(self) -> None:
        def inner_spread(op: str) -> float:
            with torch.no_grad():
                out = branch(op).eval()(torch.ones(1, 3, 8, 8))
            return out[..., 1:-1, 1:-1].std(dim=(2, 3)).max().item()

        assert inner_spread("depthwise") < 1e-6
        assert inner_spread("depthwise-wide") < 1e-6
        assert inner_spread("coordconv") > 0.01

    def test_coordconv_adds_two_inputs_and_no_width(self) -> None:
        assert count_parameters(branch("coordconv")) == count_parameters(branch("depthwise")) + 2 * 6


class TestDepthwiseControls:
    @pytest.mark.parametrize("rate", [6, 12, 18])
    def test_dilated_differs_by_its_dilation_alone(self, rate: int) -> None:
        dilated, plain = branch("depthwise-dilated", rate=rate), branch("depthwise", rate=rate)
        assert [m.dilation for m in dilated.modules() if isinstance(m, nn.Conv2d)] == [(1, 1), (rate, rate), (1, 1)]
        assert [m.dilation for m in plain.modules() if isinstance(m, nn.Conv2d)] == 3 * [(1, 1)]
        assert all(torch.equal(*pair) for pair in zip(dilated.parameters(), plain.parameters(), strict=True))

    @pytest.mark.parametrize(
        ("in_channels", "out_channels", "settings"),
        [
            (320, 256, BranchSettings((16, 16), expansion=6, generator_channels=64)),
            (512, 128, BranchSettings((32, 20), expansion=1, generator_channels=32)),
            (112, 16, BranchSettings((4, 4), expansion=1, generator_channels=8)),
        ],
    )
    def test_wide_has_the_parameters_of_tvconv(
        self, in_channels: int, out_channels: int, settings: BranchSettings
    ) -> None:
        with torch.device("meta"):
            wide, tvconv = (
                count_parameters(branch(op, settings, in_channels=in_channels, out_channels=out_channels))
                for op in ("depthwise-wide", "tvconv")
            )
        # A channel more or less is in_channels + out_channels + 9 weights and two norms' 4.
        assert abs(wide - tvconv) <= (in_channels + out_channels + 13) / 2
        assert wide == pytest.approx(tvconv, rel=0.01)

    def test_counting_for_the_wide_block_draws_no_random_number(self) -> None:
        wide = branch("depthwise-wide")
        width = next(m.out_channels for m in wide.modules() if isinstance(m, nn.Conv2d))
        torch.manual_seed(0)
        twin = inverted_residual(3, 7, width, depthwise)
        assert all(torch.equal(*pair) for pair in zip(wide.parameters(), twin.parameters(), strict=True))


class TestRuns:
    def test_operators_with_hyphens_are_folders_and_columns(
        self, draw_root: Callable[..., Path], tmp_path: Path
    ) -> None:
        root = open_root(draw_root())

        def run(op: str) -> Path:
            settings = load_config(
                "tiny", overrides=["train.threads=1", "train.epochs=1", "train.selection=last"],
                arguments={"holdout": "A", "model.op": op},
            )  # fmt: skip
            return train(settings, root, tmp_path / "runs").path.relative_to(tmp_path / "runs")

        variant = "epochs=1-selection=last-"
        for op in ("depthwise-dilated", "depthwise"):
            assert run(op).match(f"tiny/A/{op}-{variant}*/seed-0")
        evaluations = [evaluate(each) for each in find_runs([tmp_path / "runs"])]
        columns = score_table(evaluations).layout.columns
        names = [column.partition(f"-{variant}")[0] for column in columns]
        assert names == ["mean-mask", "depthwise", "depthwise-dilated"]
        plain = load_config("tiny", arguments={"holdout": "A", "model.op": "depthwise-dilated"})
        assert (plain.operator, plain.recipe(all_domains="ABCD")) == ("depthwise-dilated", "")

    def test_the_command_trains_a_control_on_another_encoder(
        self, draw_root: Callable[..., Path], tmp_path: Path
    ) -> None:
        """In this process: importing torch and lightning in another takes longer than the run."""
        given = {"model.encoder": "resnet34", "model.encoder_weights": "none", "train.epochs": 1}
        options = ["--op", "depthwise-dilated", "--config", "tiny", "--data", draw_root(), "--out", tmp_path / "runs"]
        options += [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
        done = CliRunner().invoke(app, ["train", "--holdout", "A", *map(str, options)])
        assert done.exit_code == 0, done.exception
        run = Path(done.stdout.strip())
        assert run.match("runs/tiny/A/depthwise-dilated-encoder=resnet34-epochs=1-*/seed-0")
        assert (run / "TRAINED").is_file()
