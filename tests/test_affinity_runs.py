"""What kernels of trained runs learned of position: snapshots while they train, the command, its files, its errors."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from small_runs import Lines, killed_in_epoch, metrics, settings, weights
from written_runs import write_run

from fundus_seg.data.layout import open_root
from fundus_seg.errors import CheckpointError, RunError
from fundus_seg.evaluation import measure_kernels
from fundus_seg.models.checkpoint import load_network, network_state, write_checkpoint
from fundus_seg.models.positions import measure_operator
from fundus_seg.ops import LinearTVConv2d, TVConv2d, UntiedConv2d
from fundus_seg.ops.dispatch import using
from fundus_seg.reporting import affinity_figure, affinity_reports, affinity_table, movement_figures, write_affinity
from fundus_seg.reporting.page.asked import Asked
from fundus_seg.reporting.page.blocks import Figure, LackingError
from fundus_seg.reporting.page.kernels import affinity
from fundus_seg.reporting.page.repeat import commands
from fundus_seg.reporting.page.results import find_results
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.identity import Column
from fundus_seg.runs.kernels import RunKernels, kernels_file, read_kernels, snapshot_file, snapshots, write_kernels
from fundus_seg.training import train

KEEP = ("train.keep_affinity=true", "train.steps_per_epoch=1")


@pytest.fixture(autouse=True)
def _portable():
    with using("portable"):  # no kernel is compiled for so few steps
        yield


@pytest.fixture
def root(draw_root):
    return open_root(draw_root(train=2, test=2))


def made_run(out, op, network, *, digest="", **how):
    """The folder of a run with drawn scores and a checkpoint of a network that was never trained."""
    folder = RunFolder(write_run(out, op=op, **how))
    usage = {"image_interpolation": "lanczos", "scoring": {}}
    write_checkpoint(folder.checkpoint("best"), network_state(network, usage))
    return folder


def drawn(op="tvconv", *, holdout="A", seed=0, phantom=False, layers=("branch 6",)):
    """What is measured of small operators that were never trained."""
    make = {
        "tvconv": lambda: TVConv2d(2, (6, 6), generator_channels=2),
        "linear": lambda: LinearTVConv2d(2, (6, 6)),
        "untied": lambda: UntiedConv2d(2, (6, 6)),
    }[op]
    measured = tuple(measure_operator(make(), name) for name in layers)
    column = Column(op, "", "paper", "fp32", "source-validation")
    return RunKernels(RunFolder(f"runs/{op}").path, column, holdout, seed, phantom, "best", measured)


class TestSnapshots:
    def test_they_change_no_bit_and_no_folder_and_survive_a_kill(self, root, tmp_path):
        plain = train(settings("train.steps_per_epoch=1"), root, tmp_path / "plain")
        kept = train(settings(*KEEP), root, tmp_path / "kept")
        assert kept.path.relative_to(tmp_path / "kept") == plain.path.relative_to(tmp_path / "plain")
        assert metrics(kept) == metrics(plain)
        assert kept.checkpoint("best").read_bytes() == plain.checkpoint("best").read_bytes()
        pairs = zip(weights(kept).values(), weights(plain).values(), strict=True)
        assert all(own.numpy().tobytes() == other.numpy().tobytes() for own, other in pairs)
        assert not list(plain.path.glob("kernels/*"))
        there = snapshots(kept)
        assert list(there) == [1, 2]
        assert snapshot_file(kept, 1).stat().st_size < 50_000

        last = {"checkpoint": "last"}
        (measured,) = measure_kernels([kept.path], **last)
        for own, whole in zip(there[2], measured.layers, strict=True):
            assert own.spread() == pytest.approx(whole.spread(), rel=2e-3)
            np.testing.assert_allclose(own.affinity, whole.affinity, rtol=1e-3)

        with killed_in_epoch(2):
            train(settings(*KEEP), root, tmp_path / "killed")
        killed = train(settings(*KEEP), root, tmp_path / "killed")
        for epoch in (1, 2):
            assert snapshot_file(killed, epoch).read_bytes() == snapshot_file(kept, epoch).read_bytes()

    def test_they_may_begin_late_and_other_operators_have_none(self, root, tmp_path):
        with killed_in_epoch(2):
            train(settings("train.steps_per_epoch=1"), root, tmp_path)
        late = train(settings(*KEEP), root, tmp_path)
        assert list(snapshots(late)) == [2]
        conv = train(settings(*KEEP, "train.epochs=1", op="conv"), root, tmp_path)
        with pytest.raises(RunError, match=r"seed-0: nothing was kept of its epochs; train with --set train\.keep"):
            snapshots(conv)


class TestMeasured:
    def test_it_is_kept_and_made_anew_for_other_weights(self, network, tmp_path):
        run = made_run(tmp_path, "tvconv", network)
        (first,) = measure_kernels([tmp_path])
        assert (first.column.operator, first.holdout, first.seed, first.checkpoint) == ("tvconv", "A", 0, "best")
        file = kernels_file(run, "best")
        stamp = file.stat().st_mtime_ns
        (again,) = measure_kernels([run.path])
        assert file.stat().st_mtime_ns == stamp
        assert [layer.spread() for layer in again.layers] == [layer.spread() for layer in first.layers]
        network.aspp.branches[0][3].affinity_maps.data[:, 0] = 5
        made_run(tmp_path, "tvconv", network)
        assert measure_kernels([run.checkpoint("best")])[0].layers[0].spread() != first.layers[0].spread()
        file.write_bytes(b"damaged")
        assert measure_kernels([run.path])[0].layers
        assert read_kernels(file)[1]

    def test_a_file_from_elsewhere_is_measured_and_nothing_kept(self, checkpoint):
        (found,) = measure_kernels([checkpoint])
        assert (found.column.operator, found.holdout) == ("tvconv", "unknown")
        assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["model.ckpt"]

    def test_errors_name_what_is_wrong(self, network, tmp_path):
        run = made_run(tmp_path / "runs", "tvconv", network)
        with pytest.raises(RunError, match=r"oracle\.ckpt: no such checkpoint; train it anew"):
            measure_kernels([run.path], checkpoint="oracle")
        with pytest.raises(RunError, match="no such folder"):
            measure_kernels([tmp_path / "nowhere"])
        run.checkpoint("best").unlink()
        with pytest.raises(CheckpointError, match=r"best\.ckpt: the checkpoint is gone"):
            measure_kernels([run.path])
        (tmp_path / "onnx").mkdir()
        (tmp_path / "onnx/model.onnx").touch()
        with pytest.raises(CheckpointError, match="a baked network, whose affinity maps are gone"):
            measure_kernels([tmp_path / "onnx"])

    def test_operators_without_positions_are_left_out_and_alone_refused(self, network, tmp_path):
        from fundus_seg.models import build_model

        conv = build_model(**{**network.spec, "op": "conv"})
        plain = made_run(tmp_path, "conv", conv)
        with pytest.raises(RunError, match="operator conv has no kernel for each position; give runs of tvconv"):
            measure_kernels([plain.path])
        made_run(tmp_path, "tvconv", network)
        lines = Lines()
        assert [each.column.operator for each in measure_kernels([tmp_path], progress=lines)] == ["tvconv"]
        assert sum("left out: 1 network, whose operator has no kernel" in line for line in lines.lines) == 1


class TestReport:
    def test_the_table_has_means_over_networks_and_the_frame_each(self):
        networks = [drawn(seed=0), drawn(seed=1, holdout="C"), drawn("untied"), drawn("linear")]
        report = affinity_table(networks)
        spreads = [100 * each.layers[0].spread() for each in networks[:2]]
        (text,) = (row[3] for row in report.layout.rows if row[0] == "tvconv" and row[2] == "spread as learned [%]")
        assert text == f"{np.mean(spreads):.1f} ± {np.std(spreads, ddof=1):.1f}"
        assert [row[:2] for row in report.layout.rows].count(("tvconv", "2")) == 8 + 3
        assert [row[0] for row in report.layout.rows].count("untied") == 1
        own = report.frame.query("operator == 'tvconv' and seed == 0")
        whole = own.query("quantity == 'spread' and parts == 'affinity+affines+padding'")["value"].item()
        assert own.query("quantity == 'share'")["value"].sum() == pytest.approx(whole**2)
        assert "unseen A, C" in report.layout.notes[-1]

    def test_the_phantom_stands_apart_and_says_so(self, tmp_path):
        reports = list(affinity_reports([drawn(), drawn(phantom=True)]))
        assert [report.layout.title.startswith("PHANTOM") for report in reports] == [False, True]
        written = write_affinity([drawn(phantom=True)], tmp_path)
        assert [path.name for path in written] == [f"phantom-affinity.{form}" for form in ("png", "svg", "csv", "md")]
        assert "PHANTOM" in (tmp_path / "phantom-affinity.md").read_text("utf8")

    def test_the_caption_says_what_is_drawn_alone(self):
        figure, caption = affinity_figure([drawn(), drawn(seed=1), drawn("linear"), drawn("untied")])
        headings = [axes.get_title() for axes in figure.axes]
        assert {"A1", "A4", "affines", "W as\nlearned", "W without\nboth"} <= {*headings}
        assert "tvconv (unseen A, seed 0, checkpoint best); untied (unseen A" in caption
        assert "seed 1" not in caption
        shown = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert "0.0 % (≤ 0)" in shown  # untied before any training
        _, caption = affinity_figure([drawn("untied")])
        assert not {"A1", "affines", "padding"} & {*caption.replace(",", " ").split()}

    def test_many_places_are_cut_and_the_caption_counts_them(self):
        _, caption = affinity_figure([drawn("untied", layers=[f"place {number}" for number in range(20)])])
        assert "The first 18 of 20 places are drawn" in caption


def test_the_command_and_the_page(network, tmp_path, command):
    """One run: the table, the files, how it moved, and the section of the page."""
    out = tmp_path / "runs"
    run = made_run(out, "tvconv", network, phantom=True)
    assert "name their folder with --out" in command("affinity", out, "--over-training", code=2).err
    printed = command("affinity", out, "--format", "csv")
    frame = pd.read_csv(io.StringIO(printed.out), comment="#", keep_default_na=False)
    assert {*frame["layer"]} == {"branch 6", "branch 12", "branch 18"}
    assert len(frame) == 3 * (8 + 3)
    assert "nothing was kept of its epochs" in command("affinity", out, "--out", "a", "--over-training", code=1).err
    layers = measure_kernels([out])[0].layers
    for epoch in (1, 2, 3):
        write_kernels(snapshot_file(run, epoch), layers, dtype=np.float16)
    command("affinity", run.checkpoint("best"), "--out", "a", "--over-training")
    names = [f"phantom-affinity{end}" for end in ("", "-epochs", "-curves")]
    files = {f"{name}.{form}" for name in names for form in ("png", "svg")}
    assert {path.name for path in (tmp_path / "a").iterdir()} == files | {"phantom-affinity.csv", "phantom-affinity.md"}
    assert (tmp_path / "a/phantom-affinity.md").read_text("utf8").count("PHANTOM") == 4

    (results,) = find_results([out])
    other = "1 run measured with other weights than those that were scored: `fundus-seg affinity runs`"
    with pytest.raises(LackingError, match=other):
        list(affinity(results, Asked()))
    kernels_file(run, "best").unlink()
    with pytest.raises(LackingError, match="no kernels were measured: `fundus-seg affinity runs`"):
        list(affinity(results, Asked()))
    scored = results.runs[0].evaluation.meta.checkpoint_sha256
    write_kernels(kernels_file(run, "best"), layers, digest=scored)
    figure, table = affinity(results, Asked())
    assert isinstance(figure, Figure)
    assert 'href="data:image/png;base64' in figure.svg
    assert len(figure.svg) < 200_000
    assert figure.caption.startswith("PHANTOM")
    assert table.title.startswith("PHANTOM")
    assert "fundus-seg affinity runs" in commands(results)


def test_figures_over_training_are_of_the_drawn_networks(tmp_path):
    networks = []
    for op in ("tvconv", "untied"):
        one = drawn(op)
        networks.append(
            RunKernels(tmp_path / op, *(getattr(one, name) for name in one.__dataclass_fields__ if name != "path"))
        )
        for epoch in range(1, 13):
            write_kernels(snapshot_file(RunFolder(tmp_path / op), epoch), one.layers)
    (name, figure, caption), (other, curves, _) = movement_figures(networks)
    assert (name, other) == ("epochs", "curves")
    assert [axes.get_title() for axes in figure.axes[:9]] == [f"epoch {n}" for n in (1, 2, 4, 5, 7, 8, 9, 11, 12)]
    assert "untied" not in caption
    assert {axes.get_title() for axes in curves.axes} >= {"tvconv", "untied"}


def test_a_network_that_was_handed_on_is_measured_as_the_run(network, checkpoint, tmp_path):
    from fundus_seg.inference.export import export_model

    whole = measure_kernels([checkpoint])[0].layers
    export_model(checkpoint, tmp_path / "model.safetensors", {})
    half = measure_kernels([tmp_path / "model.safetensors"])[0].layers
    assert [layer.spread() for layer in half] == pytest.approx([layer.spread() for layer in whole], rel=5e-3)
    assert load_network(checkpoint)[0].spec == network.spec
