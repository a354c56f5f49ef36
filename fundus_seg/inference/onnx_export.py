"""Write a trained network as ONNX, in a folder that runs without torch and without this package."""

from __future__ import annotations

import copy
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fundus_seg.data.coding import Coding, Thresholds
from fundus_seg.digests import bytes_digest, file_digest
from fundus_seg.errors import DataError, RunError, UsageError, counted
from fundus_seg.exchanged import CARD, ONNX
from fundus_seg.inference import trust_file
from fundus_seg.inference.calibration import calibration_of
from fundus_seg.inference.export import handed_on
from fundus_seg.inference.onnx_check import latencies, parity, plain
from fundus_seg.inference.onnx_eight_bits import in_eight_bits, refuse_lossy
from fundus_seg.inference.onnx_folder import CARD_FORMAT, LICENCE, SCRIPT
from fundus_seg.inference.onnx_network import OnnxNetwork
from fundus_seg.inference.onnx_samples import Sample, given_samples, phantom_samples
from fundus_seg.inference.predict import Predictor, load_model
from fundus_seg.models.checkpoint import read_checkpoint
from fundus_seg.models.onnx_graph import INPUT, OPSET, OUTPUT, to_onnx
from fundus_seg.progress import SILENT, Progress
from fundus_seg.protocol import STRUCTURES
from fundus_seg.runs.atomic import atomic_folder
from fundus_seg.runs.origin import start_file
from fundus_seg.runs.provenance import processor

_STANDALONE = Path(__file__).with_name("standalone.py")
_RUN_CARD = "card.md"
_NO_CARD = (
    "Research software, not a medical device. It draws the optic disc and the optic cup in photographs that are framed "
    "as those that trained it; `origin` and `settings` say what is recorded of these."
)
_OF_FILE = ("precision", "checked", "digests")
"""The names in `model.json` beside those of `_card` and of `export.handed_on`."""


def export_onnx(
    model: str | Path,
    out: Path,
    about: Mapping[str, str] | None = None,
    *,
    photographs: Sequence[Path] = (),
    truth: Sequence[str] = (),
    truth_coding: Coding | Thresholds | None = None,
    int8: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Write the network of a run, its `best`, or of a checkpoint, as a folder that `onnx_folder` describes.

    The network is baked, and its graph compared with the network in torch on photographs. The folder appears complete,
    or not at all if they differ (`onnx_check`).

    Args:
        model: the run or checkpoint.
        out: a new or empty folder.
        about: texts for its `model.json`, by name; that of `licence` also stands in its LICENSE.
        photographs: files, and folders of photographs, on which the networks are compared, each framed as `predict`
            frames it; none: phantom ones.
        truth: true masks of the photographs, as `find_masks` takes them, for `int8`.
        truth_coding: coding of the true masks; None: it is recognised.
        int8: whether the graph computes in 8 bits, whose ranges are taken from the photographs.
        progress: gets what was compared, the latency, and what is left out.

    Returns:
        `out`.

    Raises:
        UsageError: 8 bits without photographs or true masks; true masks without 8 bits; the network sees photographs at
            their own size; a text has a name that the file uses itself; or the extra `onnx` is not installed.
        DataError: `out` is not a new or empty folder, or photographs or true masks cannot be used.
        FundusSegError: the network cannot be written as ONNX, is not the same there, or loses too much in 8 bits.
        CheckpointError, RunError: as `export_model`.
    """
    if int8 != bool(truth) or (int8 and not photographs):
        raise UsageError(
            "--int8 is calibrated on --photographs with their --truth, which serves nothing else: give all"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError("exists and is not an empty folder; name a new one, or remove it first", out)
    path = start_file(str(model))
    original = load_model(path, calibrated=False)
    original = _with(original, original.network.cpu())
    card = _card(path, original.size)
    said = handed_on(model, path, about or {}, [*card, *_OF_FILE])
    if original.scoring.inference != "resize":
        raise UsageError(f"{model}: sees photographs at their own size (inference=native), and ONNX has one size")
    samples = phantom_samples(original)
    if photographs:
        samples = given_samples(photographs, truth, truth_coding, original, progress)
    graph = to_onnx(original.network)
    exported = _as_onnx(original, graph)
    checked = parity(original, exported, samples)
    checked.refuse()
    told: dict[str, Any] = plain(checked)
    progress.line(f"the network as ONNX and in torch: {checked}")
    if int8:
        graph, exported, told = _eight_bits(original, graph, samples, progress)
    _tell_latency(original, exported, progress)
    content = graph.SerializeToString()
    files = {ONNX: content, LICENCE: _licence(said.get("licence")).encode()}
    if original.scoring.anatomical:
        progress.left_out("file", "which makes no anatomical masks, as this network's protocol wants them", [SCRIPT])
    else:
        files[SCRIPT] = _STANDALONE.read_bytes()
    trust = path.parent.parent / trust_file.NAME
    if path.parent.name == "checkpoints" and trust.is_file():
        progress.left_out("file", "of predicted scores, which need features that ONNX does not give", [trust])
    content_of_card = {
        **said,  # of a file from elsewhere, which must not name the rest
        **card,
        "precision": "int8" if int8 else "fp32",
        "checked": {"on": "the given photographs" if photographs else "phantom photographs", **told},
        "digests": {"checkpoint": file_digest(path), **{name: bytes_digest(each) for name, each in files.items()}},
    }
    files[CARD] = (json.dumps(content_of_card, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    _write(out, files)
    progress.line(f"{out}: {len(content) / 1e6:.1f} MB as ONNX, opset {OPSET}")
    return out


def _with(predictor: Predictor, network: nn.Module) -> Predictor:
    """The predictor with another network, on the CPU."""
    other = copy.copy(predictor)
    other.network, other.device = network.eval(), torch.device("cpu")
    return other


def _as_onnx(original: Predictor, graph: Any) -> Predictor:
    spec: Any = original.network.spec
    return _with(original, OnnxNetwork(graph.SerializeToString(), spec))


def _eight_bits(
    original: Predictor, graph: Any, samples: Sequence[Sample], progress: Progress
) -> tuple[Any, Predictor, dict[str, Any]]:
    """The graph in 8 bits, its predictor, and what was compared; refused if it loses too much."""
    scored = [sample for sample in samples if sample.true is not None]
    if not scored:
        raise DataError("a disc is found in none of the photographs that have true masks; give others")
    graph = in_eight_bits(graph, samples)
    exported = _as_onnx(original, graph)
    scores = refuse_lossy(original, exported, scored)
    lines = [f"{name} {scores['before'][name]:.2f} before, {scores['after'][name]:.2f} after" for name in STRUCTURES]
    progress.line(f"mean Dice in 8 bits, on {counted(len(scored), 'photograph')}: {'; '.join(lines)}")
    checked = parity(original, exported, samples)
    progress.line(f"the network in 8 bits and in torch: {checked}")
    return graph, exported, {**plain(checked), "dice": scores}


def _tell_latency(original: Predictor, exported: Predictor, progress: Progress) -> None:
    torch_s, onnx_s = latencies(original.network, exported.network, original.size)
    threads = counted(torch.get_num_threads(), "thread")
    progress.line(
        f"latency of a photograph at {original.size}x{original.size}: {1000 * onnx_s:.1f} ms as ONNX, "
        f"{1000 * torch_s:.1f} ms in torch ({processor()}, {threads})"
    )


def _card(checkpoint: Path, side: int) -> dict[str, Any]:
    """What the network is and how it is used."""
    content, calibration = read_checkpoint(checkpoint), calibration_of(checkpoint)
    written = checkpoint.parent.parent / _RUN_CARD
    of_run = checkpoint.parent.name == "checkpoints" and written.is_file()
    return {
        "format": CARD_FORMAT,
        "model_spec": content["model_spec"],
        "usage": content["usage"],
        "calibration": calibration and calibration.model_dump(mode="json"),
        "input": {
            "name": INPUT,
            "shape": ["batch", 3, side, side],
            "values": "RGB, float32: a photograph resized to the shape, grey / 127.5 - 1",
        },
        "output": {"name": OUTPUT, "shape": ["batch", len(STRUCTURES), side, side], "channels": STRUCTURES},
        "opset": OPSET,
        "card": written.read_text("utf8") if of_run else _NO_CARD,
    }


def _licence(of_weights: str | None) -> str:
    """The licence of the script, which is this package's, and what was said of that of the weights."""
    files = importlib.metadata.files("fundus-seg") or ()
    own = next(file for file in files if file.name == LICENCE).locate()
    weights = of_weights or "not stated; ask who trained the network before you pass it on"
    return f"{ONNX}: {weights}\n\n{SCRIPT}:\n\n{Path(str(own)).read_text('utf8')}"


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    try:
        with atomic_folder(out.resolve()) as staged:
            for name, content in files.items():
                (staged / name).write_bytes(content)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
