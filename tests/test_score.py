from __future__ import annotations

import gzip
import re

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from drawn_masks import coded, eye, pairs_of, save
from small_runs import Lines

from fundus_seg.config import load_config
from fundus_seg.data import open_root
from fundus_seg.data.coding import DOFE, LABELS
from fundus_seg.data.io import write_mask
from fundus_seg.data.mask_files import pair_masks
from fundus_seg.errors import DataError, ProtocolError, RunError, UsageError
from fundus_seg.evaluation.external import comparable, external_evaluations, score_masks
from fundus_seg.evaluation.predictions import write_overlays
from fundus_seg.evaluation.score_run import evaluate
from fundus_seg.inference.folder import predict_folder
from fundus_seg.protocol import Scoring
from fundus_seg.reporting.tables import score_table
from fundus_seg.training import train

COLOURS = np.array([[0, 0, 9], [0, 255, 0], [255, 0, 0]], dtype=np.uint8)
WRITERS = {
    "nnunet.nii.gz": lambda path, masks: write_mask(path, masks, "nifti"),
    "nifti.nii": lambda path, masks: nibabel.Nifti1Image(coded(masks, 0, 1, 2).T, None).to_filename(path),
    "labels.png": lambda path, masks: save(path, coded(masks, 0, 1, 2)),
    "other-labels.tif": lambda path, masks: save(path, coded(masks, 0, 2, 1)),
    "greys.bmp": lambda path, masks: save(path, coded(masks, 0, 127, 255)),
    "dofe.tiff": lambda path, masks: save(path, coded(masks, 255, 128, 0)),
    "colours.png": lambda path, masks: save(path, COLOURS[coded(masks, 0, 1, 2)]),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_any_file_and_coding_gives_the_same_scores(kind, truth, tmp_path):
    suffix = kind[kind.index(".") :]
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "dataset.json").write_text("{}")
    for number in range(3):
        WRITERS[kind](tmp_path / "pred" / f"eye{number}{suffix}", eye(number + 2))
    evaluation = score_masks(pairs_of(tmp_path / "pred", truth))
    assert evaluation.cases["case"].tolist() == ["eye0", "eye0", "eye1", "eye1", "eye2", "eye2"]
    # Two columns aside: of a disc of 20 rows and 20 columns 18 columns meet, of a cup of 10 eight. 40 pixels are 800.
    assert evaluation.cases["dsc"].tolist() == pytest.approx([0.9, 0.8] * 3)
    assert evaluation.cases["hd"].tolist() == pytest.approx([40.0] * 6)
    assert evaluation.meta.selection == "unknown"
    assert evaluation.meta.external


def test_two_binary_files_are_scored_as_they_are(truth, tmp_path):
    for number in range(3):
        disc, cup = eye(number)
        save(tmp_path / "out" / f"eye{number}" / "od.png", (disc & ~cup).astype(np.uint8))
        save(tmp_path / "out" / f"eye{number}" / "oc.png", cup.astype(np.uint8) * 255)
    places = [f"{tmp_path}/out/{{name}}/od.png", f"{tmp_path}/out/{{name}}/oc.png"]
    pairs = pair_masks(places, [str(truth)])
    raw = score_masks(pairs, scoring=Scoring(largest_component=False, fill_holes=False))
    assert raw.cases["prediction_pixels"].tolist() == [300, 100] * 3
    told = Lines()
    assert score_masks(pairs, progress=told).cases["dsc"].tolist() == [1] * 6
    assert told.lines == ["post-processing of the protocol changed 3 of 3 predictions"]
    (tmp_path / "out/eye1/oc.png").unlink()
    with pytest.raises(DataError, match=r"out/eye1/od\.png: a disc without a cup in"):
        pair_masks(places, [str(truth)])
    with pytest.raises(UsageError, match="without a coding"):
        pair_masks(places, [str(truth)], prediction_coding=LABELS)


def test_discs_and_cups_that_are_exchanged_are_refused(truth, tmp_path):
    for number in range(3):
        for structure, mask in zip(("od", "oc"), eye(number), strict=True):
            save(tmp_path / structure / f"eye{number}.png", mask.astype(np.uint8) * 255)
    discs, cups = str(tmp_path / "od"), str(tmp_path / "oc")
    assert score_masks(pair_masks([discs, cups], [str(truth)])).cases["dsc"].tolist() == [1] * 6
    with pytest.raises(UsageError, match="in all 3 predictions the disc lies inside its cup"):
        score_masks(pair_masks([cups, discs], [str(truth)]))
    with pytest.raises(UsageError, match="od is given for discs and for cups"):
        pair_masks([discs, discs], [str(truth)])


def draw_cups_inside_discs(checkpoint):
    """One file of labels can hold no other cups."""
    content = torch.load(checkpoint, weights_only=True)
    weight, bias = (content["model"][f"decoder.classify.{name}"] for name in ("weight", "bias"))
    weight[1], bias[1] = weight[0], bias[0] - 0.1
    torch.save(content, checkpoint)


def test_what_predict_wrote_scores_as_evaluate_says(draw_root, tmp_path):
    root = draw_root(size=96)
    settings = [
        "train.threads=1",
        "scoring.threshold=0.5",
        "scoring.largest_component=false",
        "scoring.fill_holes=false",
    ]
    run = train(load_config("tiny", overrides=settings, arguments={"holdout": "B"}), open_root(root), tmp_path / "runs")
    draw_cups_inside_discs(run.checkpoint("best"))
    own = evaluate(run)
    assert own.cases["prediction_pixels"].sum() > 0
    rois = root / "Domain2/test/ROIs"
    for form in ("png", "nifti"):
        predict_folder(run.path, [rois / "image"], tmp_path / form, form=form)
        coding = {"png": DOFE, "nifti": LABELS}[form]  # a network this small draws no eyes to recognise it by
        pairs = pairs_of(tmp_path / form / "masks", rois / "mask", prediction_coding=coding)
        scored = score_masks(pairs, name=form, holdout="B", scoring=own.meta.protocol, out=tmp_path / "runs")
        pd.testing.assert_frame_equal(scored.cases, own.cases)
        assert scored.meta.truth_digest == own.meta.truth_digest
    found = external_evaluations([tmp_path / "runs", tmp_path / "runs" / "external"])
    assert [each.meta.run.operator for each in found] == ["nifti", "png"]
    table = score_table([own, *comparable(found, [own])]).layout
    assert table.columns == ("mean-mask", "tvconv [source-validation]", "nifti [unknown]", "png [unknown]")
    for row in table.rows:
        assert row[4] == row[5] == row[6]
    told = Lines()
    other = evaluate(run, scoring=Scoring(dice_smoothing=1))
    assert comparable(found, [other], progress=told) == []
    assert told.lines[-1].startswith("left out: 2 external evaluations, of another scoring protocol: ")
    mirrored = evaluate(run, views="flip")
    assert comparable(found, [mirrored], progress=told) == []
    assert told.lines[-1].endswith("stand beside networks that neither adapt nor predict together")
    with pytest.raises(UsageError, match="masks of another tool are there already"):
        score_masks(pairs, scoring=mirrored.meta.protocol)
    with pytest.raises(RunError, match="masks of another tool"):
        write_overlays(run, found[0], 1)


def test_a_part_of_the_cases_stands_in_no_table_beside_all(truth, tmp_path):
    for number in range(2):
        save(tmp_path / "pred" / f"eye{number}.png", coded(eye(number), 0, 1, 2))
    save(tmp_path / "pred" / "eye9.png", coded(eye(), 0, 1, 2))
    told = Lines()
    part = score_masks(pairs_of(tmp_path / "pred", truth, progress=told), name="part", progress=told)
    assert told.lines == [
        "coding of the predictions, as recognised: cup 2, rim 1, background 0",
        "coding of the true masks, as recognised: cup 0, rim 128, background 255",
        f"left out: 1 prediction, no true mask has that name: {tmp_path}/pred/eye9.png",
        "left out: 1 case, not predicted and in no mean: eye2; --missing empty counts them as missed",
    ]
    assert part.meta.unpredicted == ("eye2",)
    assert "part, unknown: left out for want of a prediction: eye2" in score_table([part]).layout.notes
    whole = score_masks(pairs_of(truth, truth), name="whole")
    with pytest.raises(ProtocolError, match=r"two sets of true masks \(unknown\) in one table"):
        score_table([part, whole])


def test_cases_without_a_prediction_count_as_missed_where_asked(truth, tmp_path):
    save(tmp_path / "pred" / "eye0.png", coded(eye(), 0, 1, 2))
    save(tmp_path / "pred" / "eye2.png", coded(eye(2), 0, 1, 2))
    pairs, out = pairs_of(tmp_path / "pred", truth), tmp_path / "runs"
    part = score_masks(pairs, out=out)
    told = Lines()
    whole = score_masks(pairs, missing="empty", out=out, progress=told)  # the same masks: written over
    assert told.lines == ["1 case without a prediction: counted as missed"]
    assert part.cases["dsc"].tolist() == [1] * 4
    assert whole.cases["case"].tolist() == ["eye0", "eye0", "eye1", "eye1", "eye2", "eye2"]
    assert whole.cases["dsc"].tolist() == [1, 1, 0, 0, 1, 1]
    assert whole.cases["prediction_pixels"].tolist() == [400, 100, 0, 0, 400, 100]
    assert whole.meta.unpredicted == ()
    assert [each.meta for each in external_evaluations([out])] == [whole.meta]


def test_scores_of_other_cases_or_truths_are_left_out_beside_runs(truth, tmp_path):
    save(tmp_path / "pred" / "eye0.png", coded(eye(), 0, 1, 2))
    own = score_masks(pairs_of(truth, truth), name="own")
    part = score_masks(pairs_of(tmp_path / "pred", truth), name="part")
    whole = score_masks(pairs_of(tmp_path / "pred", truth), name="whole", missing="empty")
    other = score_masks(pairs_of(truth, tmp_path / "pred"), name="other")
    elsewhere = score_masks(pairs_of(tmp_path / "pred", truth), name="elsewhere", holdout="B")
    told = Lines()
    assert comparable([part, whole, other, elsewhere], [own], progress=told) == [whole, elsewhere]
    assert told.lines == [
        "left out: 1 external evaluation, 2 cases without a prediction, beside scores of all cases: part; "
        "`fundus-seg score --missing empty` counts them as missed",
        "left out: 1 external evaluation, of other true masks of unknown than the others: other; "
        "give `fundus-seg score` the same",
    ]
    assert comparable([part, whole], []) == [whole]
    assert comparable([whole, other], []) == [whole, other]  # nobody knows which of the two is true
    paper, raw = own.meta.protocol, Scoring(fill_holes=False)
    assert (comparable([whole], [], scoring=paper), comparable([whole], [], scoring=raw)) == ([whole], [])


def test_scores_of_other_masks_are_not_written_over(truth, tmp_path):
    out = tmp_path / "runs"
    first = score_masks(pairs_of(truth, truth), name="a", out=out)
    assert score_masks(pairs_of(truth, truth), name="a", out=out).path == first.path
    for number in range(3):
        save(tmp_path / "pred" / f"eye{number}.png", coded(eye(number + 1), 0, 1, 2))
    other = pairs_of(tmp_path / "pred", truth)
    with pytest.raises(UsageError, match="scores of other masks; give another --name"):
        score_masks(other, name="a", out=out)
    kept = first.path.read_text(), first.path.with_suffix(".json").read_text()
    for records, meta in ((kept[0][:99], kept[1]), (kept[0], kept[1].replace('"format": 4', '"format": 1'))):
        first.path.write_text(records)
        first.path.with_suffix(".json").write_text(meta)
        with pytest.raises(UsageError, match="scores of other masks; give another --name"):
            score_masks(other, name="a", out=out)
        with pytest.raises(RunError, match=r"-external\.csv: not whole, or of another format; `fundus-seg score`"):
            external_evaluations([out])
        assert score_masks(pairs_of(truth, truth), name="a", out=out).cases.equals(first.cases)
    first.path.with_suffix(".json").unlink()  # as a killed writer leaves it
    assert score_masks(other, name="a", out=out).cases["dsc"].max() < 1
    with pytest.raises(UsageError, match=r"'\.\./a' cannot name"):
        score_masks(other, name="../a", out=out)


def test_every_problem_is_told_at_once_and_nothing_is_written(truth, tmp_path):
    pred = tmp_path / "pred"
    save(pred / "eye0.png", coded(eye(size=50), 0, 1, 2))
    odd = coded(eye(), 0, 1, 2)
    odd[0, 0] = 3
    save(pred / "eye1.png", odd)
    (pred / "eye2.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(DataError) as caught:
        score_masks(pairs_of(pred, truth), out=tmp_path / "runs")
    size, label, unreadable = map(str, caught.value.problems)
    assert size == (
        f"{pred}/eye0.png: 50x50 pixels, but its truth has 40x40 ({truth}/eye0.png); "
        "export it at that size, nothing is resampled here"
    )
    assert re.search(r"eye1\.png: greys \[3\] on .* % of its pixels are not of the coding \(cup 2, rim 1, b", label)
    assert "eye2.png: " in unreadable
    assert not (tmp_path / "runs").exists()


def nifti_header(path, spacing):
    write_mask(path, eye(), "nifti")
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    header["pixdim"][1] = spacing
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize("spacing", [float("nan"), -1.0, 0.0, float("inf")])
def test_a_nifti_with_an_impossible_spacing_is_refused(spacing, truth, tmp_path):
    (tmp_path / "pred").mkdir()
    nifti_header(tmp_path / "pred" / "eye0.nii.gz", spacing)
    with pytest.raises(DataError, match=rf"eye0\.nii\.gz: spacing {spacing:g} x 1 in its header"):
        score_masks(pairs_of(tmp_path / "pred", truth, prediction_coding=LABELS))


def test_a_nifti_of_several_slices_is_refused(truth, tmp_path):
    (tmp_path / "pred").mkdir()
    volume = np.repeat(coded(eye(), 0, 1, 2).T[..., None], 2, axis=2)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "pred" / "eye0.nii.gz")
    with pytest.raises(DataError, match=r"eye0\.nii\.gz: 40x40x2 voxels are more than one slice"):
        score_masks(pairs_of(tmp_path / "pred", truth, prediction_coding=LABELS))


def test_places_that_hold_no_pairs(truth, tmp_path):
    save(tmp_path / "pred" / "eye0_seg.png", coded(eye(), 0, 1, 2))
    with pytest.raises(DataError, match=r"no name in common with .*truth \('eye0_seg' here, 'eye0' there\); a pattern"):
        pairs_of(tmp_path / "pred", truth)
    assert pairs_of(tmp_path / "pred" / "{name}_seg.png", truth).names == ("eye0",)
    save(tmp_path / "pred" / "eye0_seg.tif", coded(eye(), 0, 1, 2))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError) as caught:
        pairs_of(tmp_path / "pred", tmp_path / "nothing")
    second, nothing = map(str, caught.value.problems)
    assert re.search(r"eye0_seg\.tif: a second mask of eye0_seg beside .*eye0_seg\.png; leave one", second)
    assert re.search(r"nothing: no mask in it \(\.png, ", nothing)
    with pytest.raises(DataError, match="nowhere: no such folder; give a folder of masks, or a pattern"):
        pairs_of(tmp_path / "nowhere", truth)
    with pytest.raises(DataError, match=r"nowhere: no such folder; expected"):
        pairs_of(tmp_path / "nowhere" / "{name}.png", truth)


def test_commands(truth, tmp_path, command):
    for number in range(3):
        save(tmp_path / "pred" / f"eye{number}.png", coded(eye(number + 1), 0, 1, 2))
    common = ["--pred", "pred", "--truth", "truth"]
    done = command("score", *common, "--name", "nnunet", "--out", "kept", "--format", "markdown")
    assert "| DSC [%] | disc (OD) | unknown | 95.00 [95.00, 95.00] |" in done.out
    assert "selection: unknown" in done.out
    shown = command("evaluate", "kept", "--format", "markdown").out
    assert shown == done.out
    tidy = command("score", *common, "--name", "nnunet", "--format", "csv").out
    assert "dsc,%,disc,unknown,nnunet,,unknown,unknown,unknown,95,NA,1,95,95,cases,False" in tidy
    assert tidy == command("evaluate", "kept", "--format", "csv").out
    clinical = command("evaluate", "kept", "--clinical", "--format", "markdown").out
    assert clinical.startswith(done.out)
    assert "| vCDR error | unknown | 0.000 |" in clinical
    score_masks(pairs_of(truth, truth), name="monai", out=tmp_path / "kept")
    compared = command("compare", "kept", "--ops", "nnunet,monai", "--format", "markdown").out
    assert "| disc | unknown | 95.00 | 100.00 | -5.00" in compared
    published = command("compare", "kept", "--to", "tvconv2022", code=1).err.splitlines()
    assert published[0].startswith("left out: 2 scores, of masks that another tool made, whose recipe is unknown: ")
    assert published[1].startswith("error: kept: no run below")
    audited = command("audit", *common, "--format", "csv").out
    assert "# 0 of 42 of our values contradict arithmetic or MedPy" in audited
    (tmp_path / "adapting.yaml").write_text("scoring: {adapt_batch_norms: 0}")
    refused = command("score", *common, "--scoring", "adapting.yaml", "--out", "other", code=2).err
    assert refused.splitlines()[-1].startswith(
        "error: scoring.adapt_batch_norms, ensembles and views change what networks"
    )
    assert not (tmp_path / "other").exists()
    wrong = command("score", *common, "--pred-coding", "label", code=2)
    assert wrong.err.startswith("error: 'label' is not a coding")
