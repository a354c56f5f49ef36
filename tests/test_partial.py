"""Cases with a disc whose cup nobody has annotated, and domains that keep their readers apart."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_case
from PIL import Image
from small_runs import Lines, metrics, settings

from fundus_seg.config import DataConfig
from fundus_seg.data import open_root
from fundus_seg.data.cache import load_resized, split_digest
from fundus_seg.data.check import check_root
from fundus_seg.data.coding import DOFE
from fundus_seg.data.dataset import read_readers, read_truth
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.digests import file_digest, short_hash
from fundus_seg.errors import DataError
from fundus_seg.evaluation import predictions
from fundus_seg.evaluation.calibrate import calibrate
from fundus_seg.evaluation.external import score_masks
from fundus_seg.evaluation.floor import mean_mask
from fundus_seg.evaluation.policy import cup_to_disc_ratios, scored_values
from fundus_seg.evaluation.records import mask_digest, read_evaluation
from fundus_seg.evaluation.runs import evaluate_runs
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.metrics import dice
from fundus_seg.reporting.atlas import make_atlas
from fundus_seg.reporting.clinical import clinical_table
from fundus_seg.reporting.floors import floors_of
from fundus_seg.reporting.readers import readers_table
from fundus_seg.reporting.tables import score_table
from fundus_seg.training import train
from fundus_seg.training.method import domain_risks
from fundus_seg.training.methods import build_method
from fundus_seg.training.task import annotated_in, find_loss, marked, over_annotated

DOMAINS = """\
domains:
  whole:
    images: "whole/photo/*.png"
    masks: "whole/mask/{name}.png"
  partial:
    images: "partial/photo/*.png"
    masks: {disc: "partial/od/{name}.png", cup: "partial/oc/{name}.png"}
    unannotated-cup: missing
  discs:
    images: "discs/photo/*.png"
    masks: {disc: "discs/od/{name}.png"}
  read:
    images: "read/photo/*.png"
    masks: {disc: "read/{annotator}/{name}-od.png", cup: "read/{annotator}/{name}-oc.png"}
    annotators: {names: [ann, bob, cem], missing: allowed}
    unannotated-cup: missing
"""
NAMES = ["00", "01", "02", "03", "04", "07", "09", "12", "22"]
TEST = ["07", "09", "12", "22"]  # by a hash of their names; 22 falls into the half that selects
WITHOUT_CUP = ["01", "03", "09"]  # in domain partial
READERS = {"ann": 0, "bob": 2, "cem": 4}  # how far each draws everything to the right
NOT_DRAWN = {("09", "cem"), ("12", "bob"), ("12", "cem")}


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four domains: whole, one with some cups, one of discs alone, and one that keeps its readers apart."""
    folder = tmp_path_factory.mktemp("partial")
    rng = np.random.default_rng(0)
    for domain in ("whole", "partial", "discs", "read"):
        for name in NAMES:
            photograph, mask = draw_case(rng, 64)
            grey = np.asarray(mask)
            save(photograph, folder / f"{domain}/photo/{name}.png")
            if domain == "whole":
                save(mask, folder / f"whole/mask/{name}.png")
            elif domain == "read":
                for reader, shift in READERS.items():
                    if (name, reader) not in NOT_DRAWN:
                        save(np.roll(grey < 255, shift, 1), folder / f"read/{reader}/{name}-od.png")
                        if (name, reader) != ("22", "bob"):
                            save(np.roll(grey == 0, shift, 1), folder / f"read/{reader}/{name}-oc.png")
            else:
                save(grey < 255, folder / f"{domain}/od/{name}.png")
                if domain == "partial" and name not in WITHOUT_CUP:
                    save(grey == 0, folder / f"partial/oc/{name}.png")
    (folder / "domains.yaml").write_text(DOMAINS, "utf8")
    return folder / "domains.yaml"


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A run whose unseen domain keeps its readers apart, and what it said."""
    lines = Lines()
    run = train(settings(holdout="read", op="conv"), open_root(root), tmp_path_factory.mktemp("runs"), progress=lines)
    return run, lines


def edited(root, tmp_path, old, new):
    """A copy of the data, whose YAML file says something else."""
    folder = shutil.copytree(root.parent, tmp_path / "copy")
    text = (folder / "domains.yaml").read_text("utf8")
    assert text.count(old) == 1
    (folder / "domains.yaml").write_text(text.replace(old, new), "utf8")
    return folder / "domains.yaml"


class TestWhatIsRead:
    def test_a_missing_cup_is_a_mark_and_no_empty_mask(self, root):
        cases = {case.name: case for case in open_root(root).cases("partial", "train")}
        assert read_truth(cases["01"]).annotated == (True, False)
        assert read_truth(cases["00"]).annotated == (True, True)
        assert read_truth(cases["01"]).told.shape == (1, 64, 64)
        assert {read_truth(case).annotated for case in open_root(root).cases("discs", "train")} == {(True, False)}

    def test_a_resized_split_keeps_the_mark(self, root):
        split = load_resized(open_root(root).cases("partial", "train"), DataConfig(size=32))
        assert split.annotated[:, 0].all()
        assert dict(zip(split.names, split.annotated[:, 1], strict=True)) == {
            name: name not in WITHOUT_CUP for name in NAMES if name not in TEST
        }
        assert load_resized(open_root(root).cases("whole", "train"), DataConfig(size=32)).annotated.all()

    def test_an_accidental_missing_cup_is_an_error_that_says_what_to_write(self, root, tmp_path):
        path = edited(root, tmp_path, '.png"}\n    unannotated-cup: missing\n  discs', '.png"}\n  discs')
        with pytest.raises(DataError, match=r"oc/01\.png; if nobody has drawn it, write `unannotated-cup: missing`"):
            open_root(path).cases("partial", "train")

    def test_an_accidental_missing_reader_too(self, root, tmp_path):
        path = edited(root, tmp_path, ", missing: allowed", "")
        with pytest.raises(DataError, match=r"09-od\.png; if nobody has drawn it, write `annotators: \{.*missing: all"):
            open_root(path).cases("read", "test")

    def test_an_empty_cup_is_not_annotated_where_the_domain_says_so(self, root, tmp_path):
        path = edited(root, tmp_path, 'whole/mask/{name}.png"', 'whole/mask/{name}.png"\n    unannotated-cup: empty')
        mask = path.parent / "whole/mask/00.png"
        grey = np.asarray(Image.open(mask))
        save(np.where(grey == 0, 128, grey).astype(np.uint8), mask)
        truths = {case.name: read_truth(case) for case in open_root(path).cases("whole", "train")}
        assert [name for name, truth in truths.items() if not truth.annotated[1]] == ["00"]
        shutil.copy(root, path)
        assert all(read_truth(case).annotated[1] for case in open_root(path).cases("whole", "train"))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("unannotated-cup: missing\n  discs", "unannotated-cup: gone\n  discs", "unknown unannotated-cup 'gone'"),
            ('od/{name}.png"}\n  read', 'od/{name}.png"}\n    unannotated-cup: missing\n  read', "names no cup"),
            ('mask/{name}.png"', 'mask/{name}.png"\n    unannotated-cup: missing', "write 'unannotated-cup: empty'"),
            ("missing: allowed", "missing: yes", "write 'missing: allowed'"),
        ],
    )
    def test_the_domain_file_is_checked(self, root, tmp_path, old, new, message):
        with pytest.raises(DataError, match=message):
            open_root(edited(root, tmp_path, old, new))

    def test_a_half_of_a_reader_is_missing(self, root, tmp_path):
        path = edited(root, tmp_path, "allowed}\n    unannotated-cup: missing\n", "allowed}\n")
        with pytest.raises(DataError, match=r"22-od\.png: a mask without its other half; expected \S*bob/22-oc\.png"):
            open_root(path).cases("read", "test")

    def test_readers_are_kept_apart_and_the_cup_is_that_of_those_who_drew_it(self, root):
        case = next(case for case in open_root(root).cases("read", "test") if case.name == "22")
        truths = {truth.reader: truth for truth in read_readers(case)}
        assert [*truths] == ["ann", "bob", "cem"]
        assert truths["bob"].annotated == (True, False)
        merged = read_truth(case)
        assert merged.annotated == (True, True)
        assert np.array_equal(merged.masks[1], truths["ann"].masks[1] & truths["cem"].masks[1])  # both of two
        votes = sum(truth.masks[0].astype(int) for truth in truths.values())
        assert np.array_equal(merged.masks[0], (votes >= 2) | merged.masks[1])

    def test_one_annotator_s_truth_keeps_the_others_as_readers(self, root, tmp_path):
        path = edited(root, tmp_path, "missing: allowed", "merge: ann")
        case = next(case for case in open_root(path).cases("read", "test") if case.name == "09")
        assert len(case.masks) == 1
        assert [reader for reader, _ in case.readers] == ["ann", "bob"]

    def test_data_check_counts_cups_and_readers(self, root):
        found = check_root(open_root(root))
        counts = {(each.domain, each.split): (each.cup_not_annotated, each.empty_cup) for each in found.splits}
        assert counts["partial", "train"] == (2, 0)
        assert counts["discs", "test"] == (4, 0)
        said = [each.text for each in found.problems("warning")]
        assert "reader cem has drawn 2 of 4 cases of read/test; this is the first of the others" in said
        assert not [text for text in said if "cup is empty" in text]

    def test_the_atlas_measures_discs_alone(self, root):
        cases = make_atlas(open_root(root)).cases.set_index(["domain", "case"])
        assert cases.loc[("discs", slice(None)), "disc_diameter"].notna().all()
        assert cases.loc[("discs", slice(None)), ["vcdr", "cup_contrast"]].isna().all(axis=None)

    def test_whole_data_have_the_digest_that_they_had(self, draw_root):
        cases = open_root(draw_root()).cases("A", "train")
        annotation = {"coding": asdict(DOFE), "merge": "majority"}
        files = [[case.name, file_digest(case.image), [[file_digest(case.mask)]], annotation] for case in cases]
        assert split_digest(cases) == short_hash(files, digits=16)


LOGITS = torch.randn((6, 2, 8, 8), generator=torch.Generator().manual_seed(0))
MASKS = (torch.rand((6, 2, 8, 8), generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.uint8)
ANNOTATED = torch.tensor([[True, True]] * 3 + [[True, False]] * 3)
TWO_DOMAINS = torch.tensor([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("name", ["bce", "bce-dice"])
class TestLoss:
    def test_a_structure_is_left_out_of_its_cases_alone(self, name):
        loss_of = find_loss(name)
        losses = over_annotated(loss_of)(LOGITS, marked(MASKS, ANNOTATED))
        assert losses[0] == loss_of(LOGITS, MASKS)[0]
        assert losses[1] == loss_of(LOGITS[:3], MASKS[:3])[1]

    def test_whole_batches_have_the_same_bits(self, name):
        loss_of = find_loss(name)
        masks = marked(MASKS, torch.ones(6, 2, dtype=torch.bool))
        assert masks is MASKS
        assert torch.equal(over_annotated(loss_of)(LOGITS, masks), loss_of(LOGITS, MASKS))

    def test_without_any_cup_its_loss_and_gradient_are_0(self, name):
        logits = LOGITS.clone().requires_grad_()
        losses = over_annotated(find_loss(name))(logits, marked(MASKS, torch.tensor([[True, False]]).repeat(6, 1)))
        losses.mean().backward()
        assert losses[1] == 0
        assert (logits.grad[:, 1] == 0).all()
        assert logits.grad[:, 0].abs().max() > 0


class TestMethods:
    @pytest.mark.parametrize("name", ["none", "groupdro", "vrex", "rsc", "mixstyle", "fourier"])
    def test_the_mark_goes_through(self, name):
        method = build_method(name)
        images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
        _, masks = method.batch(images, marked(MASKS, ANNOTATED), TWO_DOMAINS, 0)
        assert torch.equal(annotated_in(masks), ANNOTATED)

    def test_vrex_compares_the_cups_of_domains_that_have_some(self):
        loss_of = over_annotated(find_loss("bce"))
        masks = marked(MASKS, ANNOTATED)
        risks = domain_risks(loss_of, LOGITS, masks, TWO_DOMAINS)
        losses = build_method("vrex").loss(loss_of, LOGITS, masks, TWO_DOMAINS, 0)
        assert losses[0] == pytest.approx(float(risks[:, 0].mean() + risks[:, 0].var(correction=0)))
        assert losses[1] == pytest.approx(float(risks[0, 1]))  # one domain: its risk, and no variance

    def test_groupdro_weighs_the_cups_of_domains_that_have_some(self):
        loss_of = over_annotated(find_loss("bce"))
        method = build_method("groupdro")
        masks = marked(MASKS, ANNOTATED)
        risks = domain_risks(loss_of, LOGITS, masks, TWO_DOMAINS)
        losses = method.loss(loss_of, LOGITS, masks, TWO_DOMAINS, 0)
        assert method.total.tolist() == pytest.approx([float(risks[0].mean()), float(risks[1, 0])])
        weights = (0.01 * method.total).softmax(dim=0)
        assert losses[0] == pytest.approx(float((weights * risks[:, 0]).sum()))
        assert losses[1] == pytest.approx(float(risks[0, 1]))

    @pytest.mark.parametrize("name", ["groupdro", "vrex"])
    def test_a_step_without_any_cup_is_finite(self, name):
        logits = LOGITS.clone().requires_grad_()
        masks = marked(MASKS, torch.tensor([[True, False]]).repeat(6, 1))
        losses = build_method(name).loss(over_annotated(find_loss("bce")), logits, masks, TWO_DOMAINS, 0)
        losses.mean().backward()
        assert losses[1] == 0
        assert logits.grad.isfinite().all()
        assert (logits.grad[:, 1] == 0).all()


def test_the_mean_mask_of_the_cup_is_of_annotated_cups():
    one = np.zeros((2, 2, 1, 1), np.uint8)
    one[0] = 1
    mean = mean_mask([(one, np.array([[True, True], [True, False]])), (one, np.array([[True, False]] * 2))])
    assert mean.ravel().tolist() == [0.5, 1.0]


class TestRun:
    def test_training_says_how_many_train_the_disc_alone(self, trained):
        run, lines = trained
        assert "partial/train: cup not annotated: 2 of 5; these train the disc alone" in lines.lines
        assert "discs/test: cup not annotated: 4 of 4; these are scored on the disc alone" in lines.lines
        assert all(math.isfinite(float(row["loss_cup"])) for row in metrics(run))

    def test_a_run_without_any_cup_is_refused(self, root, tmp_path):
        with pytest.raises(DataError, match="nobody has annotated a cup in discs"):
            train(settings("data.sources=[discs]", holdout="read", op="conv"), open_root(root), tmp_path)

    def test_the_ceiling_is_the_agreement_of_readers(self, root, trained):
        run, _ = trained
        evaluation = evaluate(run)
        (ceiling,) = floors_of([evaluation]).ceilings
        assert ceiling.meta.run.operator == "readers"
        by_name = {case.name: case for case in open_root(root).cases("read", "test")}
        values = scored_values(ceiling).set_index(["structure", "case"])
        assert set(ceiling.cases["case"]) == {"07", "09", "22"}  # one reader alone has nobody to agree with
        for name in ("07", "09", "22"):
            drawn = read_readers(by_name[name])
            disc = [100 * dice(one.masks[0], other.masks[0]) for one, other in permutations(drawn, 2)]
            assert values.loc[("disc", name), "dsc"] == pytest.approx(np.mean(disc))
            told = [truth for truth in drawn if truth.annotated[1]]
            cup = [100 * dice(one.masks[1], other.masks[1]) for one, other in permutations(told, 2)]
            assert values.loc[("cup", name), "dsc"] == pytest.approx(np.mean(cup))
        assert (cup_to_disc_ratios(ceiling)["vcdr_error"] == 0).all()  # all draw the same shapes

    def test_a_plain_table_shows_the_ceiling_and_never_tests_it(self, trained):
        run, _ = trained
        report = score_table([evaluate(run)])
        assert report.layout.columns[:2] == ("mean-mask", "readers")
        own = report.frame[report.frame["operator"] == "readers"]
        assert not own["best"].any()
        assert (own["over"] == "cases").all()
        assert own[["mean", "low", "high"]].notna().all(axis=None)
        assert any(note.startswith("readers: the ceiling") for note in report.layout.notes)
        assert "readers, cases that two of them or more drew: read 3 cases of ann, bob, cem" in report.layout.notes
        vcdr = clinical_table([evaluate(run)]).frame
        assert vcdr[(vcdr["operator"] == "readers") & (vcdr["measure"] == "vcdr_error")]["mean"].tolist() == [0.0]

    def test_scores_against_each_reader_have_a_table_of_their_own(self, trained, root):
        run, _ = trained
        lines = Lines()
        found = evaluate_runs([run.path], against_readers=True, progress=lines)
        (against,) = found.by_reader
        assert any("2 cases, of read not drawn by reader cem" in line for line in lines.lines)
        assert against.meta.protocol_digest != found.evaluations[0].meta.protocol_digest
        assert against.cases.groupby("reader")["case"].nunique().to_dict() == {"ann": 4, "bob": 3, "cem": 2}
        report = readers_table([against])
        assert report.layout.columns == ("mean-mask", "readers", "conv")
        frame = report.frame.set_index(["measure", "structure", "reader", "operator"])["mean"]
        ceiling = floors_of([against]).ceilings[0]
        own = scored_values(ceiling, by_reader=True)
        ann = own[(own["structure"] == "disc") & (own["reader"] == "ann")]["dsc"].mean()
        assert frame["dsc", "disc", "ann", "readers"] == pytest.approx(ann)
        assert frame["vcdr_error", "", "all", "readers"] == 0
        with pytest.raises(Exception, match="two scoring protocols"):
            score_table([found.evaluations[0], against])
        again = evaluate(run, against_readers=True)
        assert again.path == against.path
        pd.testing.assert_frame_equal(again.cases, against.cases)

    def test_readers_that_change_are_scored_again(self, trained, root, tmp_path):
        run, _ = trained
        digest = evaluate(run, against_readers=True).meta.data["read/test/readers"]
        path = edited(root, tmp_path, "names: [ann, bob, cem]", "names: [bob, ann, cem]")
        with pytest.raises(DataError, match="is not what"):
            evaluate(run, path, against_readers=True)
        assert evaluate(run, against_readers=True).meta.data["read/test/readers"] == digest

    def test_calibration_takes_the_annotated_cups(self, trained):
        run, _ = trained
        measured = {(each.structure, each.where): dict(each.domains) for each in calibrate(run)}
        assert measured["disc", "in-domain"] == {"discs": 3, "partial": 3, "whole": 3}
        assert measured["cup", "in-domain"] == {"partial": 2, "whole": 3}
        assert measured["cup", "unseen"] == {"read": 4}

    def test_the_command_prints_both_tables(self, trained, command):
        run, _ = trained
        printed = command("evaluate", run.path, "--readers", "--format", "markdown")
        assert "Against each reader, unseen domains" in printed.out
        assert "vCDR error" in printed.out


def test_a_domain_of_discs_is_scored_on_the_disc_alone(root, tmp_path, monkeypatch):
    lines = Lines()
    said = []
    draw = predictions.draw_overlay
    kept = lambda *masks, texts, **name: said.extend(texts) or draw(*masks, texts=texts, **name)  # noqa: E731
    monkeypatch.setattr(predictions, "draw_overlay", kept)
    run = train(settings(holdout="discs", op="conv"), open_root(root), tmp_path, probe=True, progress=lines)
    evaluation = evaluate(run)
    cups = evaluation.cases[evaluation.cases["structure"] == "cup"]
    assert cups["truth_pixels"].isna().all()
    assert cups["dsc"].isna().all()
    assert scored_values(evaluation).groupby("structure")["not_annotated"].sum().to_dict() == {"cup": 4, "disc": 0}
    report = score_table([evaluation])
    assert "cup not annotated: 4 of 4 (discs); in no mean of the cup" in report.layout.notes
    dsc = {row[1]: row[3:] for row in report.layout.rows if row[0] == "DSC [%]"}
    assert dsc["cup (OC)"] == ("not annotated", "not annotated")
    assert [text.split()[0] for text in dsc["disc (OD)"]] == [*dsc["mean"]]  # of the disc alone
    assert json.loads(evaluation.path.with_suffix(".pairs").read_text())["mean_pairwise_iou"].keys() == {"disc"}
    assert read_evaluation(evaluation.path).cases.equals(evaluation.cases)
    found = evaluate_runs([run.path], against_readers=True, overlays=1, progress=lines)
    assert found.by_reader == []
    assert any("domain discs does not keep its readers apart: write `annotators:" in line for line in lines.lines)
    assert len(found.overlays) == 1
    assert "cup not annotated" in said


class TestMasksOfAnyTool:
    @pytest.fixture
    def predicted(self, root, tmp_path):
        for name in NAMES:
            for part in ("od", "oc"):
                save(Image.open(root.parent / f"discs/od/{name}.png"), tmp_path / f"pred/{part}/{name}.png")
        return [str(tmp_path / "pred/od"), str(tmp_path / "pred/oc")]

    def test_cups_without_a_file_are_not_scored(self, root, predicted):
        truths = [str(root.parent / "partial/od"), str(root.parent / "partial/oc")]
        with pytest.raises(DataError, match=r"a disc without a cup in .*drawn it, give --unannotated-cup m"):
            pair_masks(predicted, truths)
        evaluation = score_masks(pair_masks(predicted, truths, unannotated_cup="missing"))
        sizes = evaluation.cases.set_index(["structure", "case"])["truth_pixels"]
        assert sizes["cup"].index[sizes["cup"].isna()].tolist() == WITHOUT_CUP
        assert sizes["disc"].notna().all()

    def test_discs_alone(self, root, predicted):
        pairs = pair_masks(predicted, [str(root.parent / "discs/od")], unannotated_cup="missing")
        values = scored_values(score_masks(pairs)).set_index("structure")
        assert (values.loc["disc", "dsc"] == 100).all()
        assert values.loc["cup", "not_annotated"].all()

    def test_an_empty_cup_is_another_truth_than_none(self, root):
        truth = read_truth(open_root(root).cases("discs", "test")[0])
        assert mask_digest(truth.told) != mask_digest(truth.masks)
