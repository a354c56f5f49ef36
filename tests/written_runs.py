"""Run folders with drawn scores, as training and evaluation leave them, made without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from small_runs import settings

from fundus_seg.config import MachineSettings, resolve_machine, resolve_sources
from fundus_seg.evaluation.metric_table import distances, overlaps
from fundus_seg.evaluation.records import EvaluationMeta, write_evaluation
from fundus_seg.protocol import chosen_by
from fundus_seg.runs.atomic import csv_text, write_rows
from fundus_seg.runs.identity import identity_of, run_folder
from fundus_seg.runs.record import record

DOMAINS = ("A", "B", "C")
MACHINE = MachineSettings(threads=1, precision="fp32", channels_last=True)


def write_run(
    out: Path,
    *overrides: str,
    op: str = "tvconv",
    holdout: str = "A",
    seed: int = 0,
    cases: Sequence[str] = ("one", "two", "three", "four"),
    checkpoints: Sequence[str] = ("best",),
    in_domain: bool = False,
    phantom: bool = False,
) -> Path:
    """The folder of a run of preset tiny on domains A to C, with drawn scores of its checkpoints, and its epochs."""
    config = resolve_machine(
        resolve_sources(settings(*overrides, holdout=holdout, op=op, seed=seed), DOMAINS, where=out), MACHINE
    )
    identity = identity_of(config, DOMAINS)
    folder = run_folder(config, identity.recipe, out, phantom=phantom)
    data = {f"{domain}/{split}": f"{domain}{split}0123456789"[:16] for domain in DOMAINS for split in ("train", "test")}
    probed = "oracle" in checkpoints
    root = "phantom" if phantom else str(out / "photographs")
    record(
        folder, config, data, identity=identity, data_root=root, phantom=phantom, probed=probed, gpu=None
    )  # fmt: skip
    folder.mark("TRAINED")
    folder.mark("DONE")
    epochs = [
        {"epoch": epoch, "loss_disc": 1 / epoch, "loss_cup": 2 / epoch, "dice_disc": 0.8, "dice_cup": 0.7}
        for epoch in (1, 2)
    ]
    write_rows(folder.metrics, epochs)
    digest = config.scoring.digest()
    for number, checkpoint in enumerate(checkpoints):
        for scored in ("holdout", *(["in-domain"] if in_domain else [])):
            domains = [holdout] if scored == "holdout" else [domain for domain in DOMAINS if domain != holdout]
            meta = EvaluationMeta(
                protocol=config.scoring,
                protocol_digest=digest,
                data=data,
                phantom=phantom,
                selection=chosen_by(config.train.selection, checkpoint),
                checkpoint=checkpoint,
                scored=scored,
                probed=probed,
                checkpoint_sha256=f"{seed:064x}",
                truth_digest="of all",
                run=identity,
                versions={"fundus-seg": "0", "torch": "2"},
            )
            rng = np.random.default_rng([seed, number, len(holdout), ord(holdout[0]), len(op)])
            rows = [row for domain in domains for case in cases for row in _rows(rng, domain, case)]
            name = checkpoint if scored == "holdout" else f"{checkpoint}-{scored}"
            write_evaluation(folder.evaluation(digest, name), meta, csv_text(rows))
    return folder.path


def _rows(rng: np.random.Generator, domain: str, case: str) -> list[dict[str, object]]:
    """The rows of a case: a disc twice as high as its cup, true and predicted, and any scores."""
    return [
        {
            "protocol": "drawn",
            "domain": domain,
            "case": case,
            "structure": structure,
            **{f"{side}_{size}": int(rng.integers(least, 2 * least)) for side in ("prediction", "truth")
               for size in ("pixels", "rows", "columns")},
            **dict.fromkeys(("components", "holes", "outside_disc"), 0),
            **{name: rng.uniform(0.5, 1) for name in overlaps()},
            **{name: rng.uniform(1, 50) for name in distances()},
        }
        for structure, least in (("disc", 60), ("cup", 30))
    ]  # fmt: skip
