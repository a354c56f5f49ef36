"""Predict the masks of one photograph with a trained network."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fundus_seg.builtins import Precision, positional_part
from fundus_seg.data.cache import RESAMPLING
from fundus_seg.data.framing import Framing
from fundus_seg.errors import CheckpointError, DataError, RunError, UsageError
from fundus_seg.exchanged import is_onnx_folder
from fundus_seg.hardware import default_device
from fundus_seg.inference.calibration import calibration_of
from fundus_seg.inference.onnx_network import load_onnx
from fundus_seg.inference.postprocess import clean_by
from fundus_seg.models import scale_photographs
from fundus_seg.models.checkpoint import load_network
from fundus_seg.protocol import DEEP_STRIDE, STRUCTURES, Scoring
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.model_names import model_path

_BYTES_PER_PIXEL = 85 * 2**20 / 256**2
"""Memory of a GPU for each pixel that the network sees: what training takes (docs/scaling.md), more than enough."""
_MOST_AT_ONCE = 32


class Segmenter(abc.ABC):
    """A photograph in, masks out: what one network has in common with several that predict together.

    `segmenter(image)` maps a photograph (H, W, 3) uint8 of any size to masks (2, H, W) bool, channels ("disc", "cup").
    The steps of it can be taken one by one, in different threads: `prepare`, `logits_of_batch`, `framed`, `clean`.

    Attributes:
        scoring: inference, threshold and post-processing.
        framing: of the photographs that trained the networks; None: not known.
        phantom: whether these were the phantom's; None: not known.
    """

    scoring: Scoring
    framing: Framing | None
    phantom: bool | None

    @property
    @abc.abstractmethod
    def calibrated(self) -> bool:
        """Whether `probabilities` are calibrated; masks never depend on it."""

    @property
    @abc.abstractmethod
    def batch(self) -> int:
        """How many photographs a network sees at a time, when there are many of them."""

    @property
    @abc.abstractmethod
    def threads(self) -> int:
        """How many of the processor's cores a network takes while it works."""

    @abc.abstractmethod
    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """What `logits_of_batch` takes of a photograph (H, W, 3) uint8.

        Raises:
            ValueError: the photograph is not such an array.
        """

    @abc.abstractmethod
    def logits_of_batch(self, images: Sequence[Any], frame: Sequence[int]) -> Sequence[Any]:
        """What `probability` takes of at most `batch` photographs that `prepare` has given, all of one size.

        Args:
            images: the photographs.
            frame: height and width of the first one, for the error.

        Raises:
            DataError: the memory is too small for a photograph of this size, with native inference.
        """

    @abc.abstractmethod
    def probability(
        self, logits: Any, frame: Sequence[int], structure: int, *, calibrated: bool = False
    ) -> NDArray[np.float32]:
        """The probability (H, W) of one structure in a photograph's frame (H, W).

        Args:
            logits: of the photograph, as `logits_of_batch` gives them.
            frame: its height and width.
            structure: the structure's place in STRUCTURES.
            calibrated: whether the networks' temperatures are applied, where there are any.
        """

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Masks (2, H, W) bool of a photograph (H, W, 3) uint8; raises what `raw_masks` raises."""
        return self.clean(self.raw_masks(image))

    def raw_masks(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Masks (2, H, W) bool of a photograph (H, W, 3) uint8, without post-processing.

        Raises:
            ValueError: the photograph is not such an array.
            DataError: the memory is too small for a photograph of this size, with native inference.
        """
        frame = image.shape[:2]
        return self.framed(self.logits_of_batch([self.prepare(image)], frame)[0], frame)

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (2, H, W) of a photograph (H, W, 3) uint8, calibrated where the networks are.

        Neither threshold nor post-processing has touched them. Raises what `raw_masks` raises.
        """
        frame = image.shape[:2]
        found = np.empty((len(STRUCTURES), *frame), np.float32)
        self.framed(self.logits_of_batch([self.prepare(image)], frame)[0], frame, found)
        return found

    def framed(
        self, logits: Any, frame: Sequence[int], probabilities: NDArray[np.float32] | None = None
    ) -> NDArray[np.bool_]:
        """Masks (2, H, W) bool, not cleaned, of a photograph's frame (H, W).

        Args:
            logits: of the photograph, as `logits_of_batch` gives them.
            frame: its height and width.
            probabilities: array (2, H, W) that gets the probabilities, calibrated where the networks are; None: they
                are not kept. The masks come from the uncalibrated ones, as the scoring protocol says.
        """
        masks = np.empty((len(STRUCTURES), *frame), np.bool_)
        for number, mask in enumerate(masks):  # one after the other: half the memory, and half the time
            found = self.probability(logits, frame, number)
            np.greater(found, self.scoring.threshold, out=mask)
            if probabilities is not None:
                if self.calibrated:
                    found = self.probability(logits, frame, number, calibrated=True)
                probabilities[number] = found
        return masks

    def clean(self, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Apply the protocol's post-processing to thresholded masks (2, H, W)."""
        return clean_by(self.scoring, masks)


class Predictor(Segmenter):
    """A trained network together with its resizing and post-processing.

    `predictor(image)` maps a photograph (H, W, 3) uint8 of any size to masks (2, H, W) bool, channels ("disc", "cup").
    The photograph should be framed like the training data: a square around the disc.

    With `scoring.inference` "resize", the network sees the photograph at the training size, and its logits are
    upsampled bilinearly. With "native", it sees the photograph at its own size, reflected at all four edges up to the
    next multiples of 16 (an odd pixel is added right or below, so that the centre stays in place), and the logits are
    cropped back.

    Args:
        network: a network made by `build_model` or `bake`.
        scoring: inference, threshold and post-processing; None: the defaults.
        interpolation: how photographs are resized, a key of RESAMPLING.
        precision: "bf16" runs the network under autocast, which is faster on hardware with bf16 instructions; masks may
            differ in a few pixels. Evaluation always uses "fp32", so that scores do not depend on the machine.
        device: where the network runs; None: a GPU if there is one.
        framing: of the photographs that trained the network; None: not known.
        phantom: whether these were the phantom's; None: not known.
        temperatures: divisors of the logits of disc and cup that calibrate the probabilities; None: not calibrated.
        mirrored: whether mirrored photographs trained the network too.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        scoring: Scoring | None = None,
        interpolation: str = "lanczos",
        precision: Precision = "fp32",
        device: torch.device | None = None,
        framing: Framing | None = None,
        phantom: bool | None = None,
        temperatures: Sequence[float] | None = None,
        mirrored: bool = False,
    ) -> None:
        self.device = device or default_device()
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"unknown precision {precision!r}: pass 'fp32' or 'bf16'.")
        self.precision = precision
        self.size = int(network.spec["image_size"])  # type: ignore[index]
        self.scoring = scoring or Scoring()
        self.interpolation = RESAMPLING[interpolation]
        self.framing = framing
        self.phantom = phantom
        self.temperatures = temperatures
        self.mirrored = mirrored

    @property
    def calibrated(self) -> bool:
        """Whether the network has temperatures."""
        return self.temperatures is not None

    @property
    def sees(self) -> tuple[Any, ...]:
        """What `prepare` depends on: networks for which it is equal see the same of a photograph."""
        return (self.scoring.inference, self.size, self.interpolation)

    @property
    def one_sided(self) -> str | None:
        """What in the network knows the left of a photograph from the right, if it has seen no mirrored one."""
        spec = self.network.spec
        return None if self.mirrored else positional_part(spec.get("op", ""), spec.get("encoder", ""))

    @cached_property
    def batch(self) -> int:
        """How many photographs the network sees at a time, when there are many of them.

        On a CPU one: a batch is no faster there, and with several threads it changes the last bits of the logits. On a
        GPU a power of two that half of its free memory holds. Native photographs differ in size, so each is alone.
        """
        if self.device.type != "cuda" or self.scoring.inference == "native":
            return 1
        fitting = torch.cuda.mem_get_info(self.device)[0] / 2 / (_BYTES_PER_PIXEL * self.size**2)
        return 2 ** int(math.log2(min(max(fitting, 1), _MOST_AT_ONCE)))

    @property
    def threads(self) -> int:
        """How many of the processor's cores the network takes while it works."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the network sees (h, w, 3) of a photograph (H, W, 3) uint8.

        Raises:
            ValueError: the photograph is not such an array.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a photograph is (H, W, 3) uint8, got {image.shape} {image.dtype}")
        if self.scoring.inference == "native":
            return np.pad(image, (*(_margins(side) for side in image.shape[:2]), (0, 0)), mode="reflect")
        return np.asarray(Image.fromarray(image).resize((self.size, self.size), self.interpolation))

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """Logits (B, 2, h, w) of photographs (B, h, w, 3) uint8, which the network sees as they are."""
        batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(scale_photographs(batch)).float()

    def logits_of_batch(self, images: Sequence[NDArray[np.uint8]], frame: Sequence[int]) -> Tensor:  # type: ignore[override]
        """Logits (B, 2, h, w) of at most `batch` photographs that `prepare` has given, all of one size.

        A smaller batch is filled with its last photograph: the network always computes in the same shapes, so that the
        masks of a photograph do not depend on how many others there are.

        Args:
            images: (h, w, 3) uint8 each.
            frame: height and width of the first photograph, for the error.

        Raises:
            DataError: the memory is too small for a photograph of this size, with native inference.
        """
        filled = [*images, *[images[-1]] * (self.batch - len(images))]
        try:
            return self.logits(np.stack(filled))[: len(images)]
        except MemoryError as error:
            raise DataError(
                f"{frame[1]}x{frame[0]} pixels are too many for inference=native: crop it to the disc region, "
                f"or take inference=resize ({error})"
            ) from error

    @torch.inference_mode()
    def probability(
        self, logits: Tensor, frame: Sequence[int], structure: int, *, calibrated: bool = False
    ) -> NDArray[np.float32]:
        """The sigmoid (H, W) of one structure's logits (h, w), brought to a frame (H, W) by bilinear interpolation."""
        own = logits[structure]
        if self.scoring.inference == "native":
            (top, _), (left, _) = map(_margins, frame)
            own = own[top : top + frame[0], left : left + frame[1]]
        upsampled = F.interpolate(own[None, None], tuple(frame), mode="bilinear", align_corners=False)[0, 0]
        if calibrated and self.temperatures:
            upsampled = upsampled / self.temperatures[structure]
        return upsampled.sigmoid().cpu().numpy()


def _margins(side: int) -> tuple[int, int]:
    """The number of pixels to add before and after a side, to make its length a multiple of the network's stride."""
    missing = -side % DEEP_STRIDE
    return missing // 2, missing - missing // 2


def load_model(
    run_or_checkpoint: str | Path,
    *,
    checkpoint: str = "best",
    scoring: Scoring | None = None,
    precision: Precision = "fp32",
    calibrated: bool = True,
) -> Predictor:
    """Load the predictor of a run or of a checkpoint file, with the run's temperatures if it is calibrated.

    Args:
        run_or_checkpoint: the folder of a run, a checkpoint file, the name of a model, as `starter`, or a folder that
            `fundus-seg export --format onnx` made, whose network runs on the CPU and has one size and precision.
        checkpoint: which checkpoint of a run's folder: `best`, `last`, `average` or `oracle`.
        scoring: inference, threshold and post-processing; None: those of the run that made the checkpoint.
        precision: as in `Predictor`.
        calibrated: whether the run's temperatures are taken; without them its calibration.json is not read.

    Raises:
        RunError: the folder has no such checkpoint, or its calibration.json is damaged.
        CheckpointError: the file is not a complete checkpoint of fundus-seg; or as `model_path` and `load_onnx`.
        UsageError: an ONNX folder with bf16 or native inference, or without onnxruntime.
    """
    path = model_path(run_or_checkpoint)
    as_onnx = is_onnx_folder(path)
    network: nn.Module
    if as_onnx:
        network, usage, calibration = load_onnx(path)
    else:
        path = _checkpoint(path, checkpoint)
        network, usage = load_network(path)
        calibration = calibration_of(path) if calibrated else None
    try:
        own = Scoring(**usage["scoring"])
        framing = usage.get("framing")
        predictor = Predictor(
            network,
            scoring=scoring or own,
            interpolation=usage["image_interpolation"],
            precision=precision,
            device=torch.device("cpu") if as_onnx else None,
            framing=Framing(**framing) if framing else None,
            phantom=usage.get("phantom"),
            mirrored=bool(usage.get("mirrored")),
            temperatures=calibration.temperatures if calibration and calibrated else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not say how its network is used") from error
    if as_onnx and (precision != "fp32" or predictor.scoring.inference != "resize"):
        raise UsageError(f"{path}: ONNX, of one size and precision; leave precision bf16 and inference native out")
    return predictor


def _checkpoint(path: Path, name: str) -> Path:
    """The checkpoint of this name in the folder of a run; a file stands for itself."""
    file = RunFolder(path).checkpoint(name) if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise RunError(f"{path}: no checkpoints/{name}.ckpt in it; give the folder of a trained run, seed-N")
    return file
