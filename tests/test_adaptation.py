from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_runs import Lines, settings
from torch import nn

from fundus_seg import load_model
from fundus_seg.config import load_scoring
from fundus_seg.data import FundusDataset, open_root
from fundus_seg.errors import DataError, ProtocolError
from fundus_seg.evaluation import predictions
from fundus_seg.evaluation.predictions import write_overlays
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.inference import adaptation
from fundus_seg.inference.adaptation import adapted
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.predict import Predictor
from fundus_seg.models import bake, build_model
from fundus_seg.protocol import Scoring
from fundus_seg.reporting import evaluation_reports
from fundus_seg.reporting.tables import score_table
from fundus_seg.training import train

TINY = {"encoder": "tu-mobilenetv2_035", "image_size": 64, "aspp_channels": 8}


def photographs(*greys):
    """Photographs (n, 16, 16, 3), each of one grey value."""
    return np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in greys])


def predictor_of(network, count):
    return Predictor(network, scoring=Scoring(adapt_batch_norms=count), device=torch.device("cpu"))


def one_norm(mean=5.0, variance=9.0):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    network.spec = {"image_size": 16}
    network[0].running_mean.fill_(mean)
    network[0].running_var.fill_(variance)
    return network


@pytest.mark.parametrize(
    ("count", "mean", "variance"),
    [(0, -0.5, 512 / 511 / 2), (4, (4 * 5 - 4 * 0.5) / 8, (4 * 9 + 4 * 512 / 511 / 2) / 8)],
)
def test_statistics_by_hand(count, mean, variance, monkeypatch):
    """Greys 0 and 255 are -1 and 1: means 0 and -1 in two batches of two, unbiased variances 512 / 511 and 0."""
    monkeypatch.setattr(adaptation, "_BATCH", 2)
    network = one_norm()
    norm = adapted(predictor_of(network, count), photographs(0, 255, 0, 0)).network[0]
    assert norm.running_mean.tolist() == pytest.approx([mean] * 3, rel=1e-6)
    assert norm.running_var.tolist() == pytest.approx([variance] * 3, rel=1e-6)
    assert network[0].running_mean.tolist() == [5.0] * 3  # the network itself has not adapted
    assert not norm.training and not network[0].training


def test_batches_weigh_as_many_photographs_as_they_have(monkeypatch):
    """Means of -1 over three photographs and of 1 over two."""
    monkeypatch.setattr(adaptation, "_BATCH", 3)
    norm = adapted(predictor_of(one_norm(), 0), photographs(0, 0, 0, 255, 255)).network[0]
    assert norm.running_mean.tolist() == pytest.approx([(-3 + 2) / 5] * 3, rel=1e-6)


def test_later_norms_see_what_earlier_ones_make_of_the_batch():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    network.spec = {"image_size": 16}
    own = adapted(predictor_of(network, 0), photographs(0, 0, 255, 255)).network
    assert own[1].running_mean.tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    assert own[1].running_var.tolist() == pytest.approx([1024 / 1023] * 3, rel=1e-4)


def test_a_protocol_that_does_not_adapt_gives_the_very_predictor():
    predictor = predictor_of(one_norm(), None)
    assert adapted(predictor, photographs(0)) is predictor


def test_one_photograph_is_too_few(draw_root, tmp_path):
    run = train(settings("train.selection=last", holdout="B"), open_root(draw_root(test=1)), tmp_path)
    with pytest.raises(DataError, match=r"Btest0\.png: one photograph alone: batch norms adapt to two or more"):
        evaluate(run, adapt_batch_norms=0)


def test_a_baked_network_is_refused():
    with pytest.raises(ValueError, match="baked network cannot adapt"):
        adapted(predictor_of(bake(build_model("tvconv", **TINY)), 0), photographs(0, 1))


@pytest.mark.parametrize("op", ["conv", "tvconv"])
def test_seventeen_photographs_make_no_batch_of_one(op):
    """The batch norm of the ASPP's pooling sees one value for each photograph: of one alone it has no variance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = predictor_of(build_model(op, **TINY), 0)
    images = np.random.default_rng(0).integers(256, size=(17, 64, 64, 3), dtype=np.uint8)
    before = copy.deepcopy(predictor.network.state_dict())
    own, again = adapted(predictor, images), adapted(predictor, images)
    assert torch.equal(own.logits(images[:2]), again.logits(images[:2]))  # no dropout, no random number
    assert not torch.equal(own.logits(images[:2]), predictor.logits(images[:2]))
    assert all(torch.equal(value, before[name]) for name, value in predictor.network.state_dict().items())


@pytest.fixture
def run(draw_root, tmp_path):
    return train(settings(holdout="B"), open_root(draw_root(size=96, test=10)), tmp_path / "runs")


def test_scores_are_those_of_a_network_that_has_seen_the_whole_domain(run):
    plain, scored = evaluate(run), evaluate(run, adapt_batch_norms=0)
    protocol = Scoring(adapt_batch_norms=0)
    assert scored.meta.protocol == protocol
    assert scored.path == run.evaluation(protocol.digest(), "best") != plain.path
    samples = list(FundusDataset(run.read_config()["provenance"]["data_root"], "B", "test"))
    predictor = load_model(run.path, scoring=protocol)
    own = adapted(predictor, np.stack([predictor.prepare(sample.image) for sample in samples]))
    pixels = scored.cases.groupby("case")["prediction_pixels"].sum().tolist()
    assert pixels == [own(sample.image).sum() for sample in samples]
    assert pixels != plain.cases.groupby("case")["prediction_pixels"].sum().tolist()
    assert evaluate(run, scoring=protocol).path == scored.path
    assert evaluate(run).cases.equals(plain.cases)


def test_a_cut_evaluation_is_recovered_with_the_statistics_of_all_cases(run, monkeypatch):
    monkeypatch.setattr(predictions, "BATCH", 2)
    scored = evaluate(run, adapt_batch_norms=2)
    written = scored.path.read_bytes()
    scored.path.write_bytes(b"".join(written.splitlines(keepends=True)[:7]))
    assert evaluate(run, adapt_batch_norms=2).path.read_bytes() == written


def test_each_source_domain_has_statistics_of_its_own(run, monkeypatch):
    sizes = []

    def counted(predictor, images):
        sizes.append(len(images))
        return adapted(predictor, images)

    monkeypatch.setattr(predictions, "adapted", counted)
    inside = evaluate(run, scored="in-domain", adapt_batch_norms=0)
    cases = inside.cases.drop_duplicates(["domain", "case"])
    assert sizes == cases.groupby("domain", sort=False).size().tolist()
    assert len(sizes) == 3


def test_every_table_says_that_it_is_transductive(run):
    found = evaluate_runs([run.path], in_domain=True, adapt_batch_norms=0)
    reports = list(evaluation_reports(found.evaluations, ["dsc"], pairs=found.pairs, clinical=True, leak=False))
    assert len(reports) == 3
    words = "transductive: batch norms adapted to the photographs of the domain that is scored"
    for report in reports:
        assert report.layout.title.endswith(f"selection: source-validation; {words}")
        assert any(
            f"not the default: adapt_batch_norms 0 (default None); {words}" in note for note in report.layout.notes
        )
    with pytest.raises(ProtocolError, match=r"two scoring protocols \(adapt_batch_norms\).* and --adapt-batch-norms"):
        score_table([evaluate(run), *found.evaluations])


def test_overlays_show_the_masks_that_were_scored(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(predictions, "draw_overlay", lambda image, masks, *_, **__: drawn.append(masks.sum()) or image)
    scored = evaluate(run, adapt_batch_norms=0)
    write_overlays(run, scored, 10)
    assert sorted(drawn) == sorted(scored.cases.groupby("case")["prediction_pixels"].sum())


def test_a_run_of_this_protocol_predicts_as_it_was_trained_and_says_so(draw_root, tmp_path):
    data = draw_root(size=96)
    root = open_root(data)
    adapting = train(settings("scoring.adapt_batch_norms=3", holdout="B"), root, tmp_path / "adapting")
    plain = train(settings(holdout="B"), root, tmp_path / "plain")
    assert adapting.path.relative_to(tmp_path / "adapting") == plain.path.relative_to(tmp_path / "plain")
    usages = [torch.load(each.checkpoint("best"), weights_only=True)["usage"]["scoring"] for each in (adapting, plain)]
    assert usages[0].pop("adapt_batch_norms") == 3
    assert usages[0] == usages[1]
    assert evaluate(adapting).meta.protocol == load_scoring(str(adapting.path)) == Scoring(adapt_batch_norms=3)
    progress, photographs = Lines(), next(data.glob("**/B*test0.png")).parent
    predict_folder(adapting.path, [photographs], tmp_path / "out", progress=progress)
    assert any("scoring.adapt_batch_norms is for scores alone" in line for line in progress.lines)
    predict_folder(plain.path, [photographs], tmp_path / "others")
    for mask in (tmp_path / "out/masks").iterdir():
        assert mask.read_bytes() == (tmp_path / "others/masks" / mask.name).read_bytes()
