"""Names of models that are no paths: `starter`, the network that comes with the package, and addresses elsewhere."""

from __future__ import annotations

from pathlib import Path

from fundus_seg.digests import file_digest
from fundus_seg.errors import CheckpointError
from fundus_seg.exchanged import WEIGHTS
from fundus_seg.runs.downloads import fetched, is_address

STARTER = "starter"
"""The name of the network that comes with the package (docs/starter.md)."""
STARTER_FILE = Path(__file__).parents[1] / "models" / "starter.safetensors"
"""Its file; `make starter` makes it again."""
STARTER_SHA256 = "cf43302e79848765e67c79f6943c151b2aaff9a1be66c420e262c33d346759a7"
"""Its SHA-256, written here when it is made anew."""


def is_model_name(text: str) -> bool:
    """Whether a text names a model without being a path; `./starter` is the path of a file of that name."""
    return text == STARTER or is_address(text)


def model_path(model: str | Path) -> Path:
    """The run or file that a model's name stands for, fetched if it lies elsewhere; a path stands for itself.

    A text may be either, a `Path` is a path. A folder with a `model.safetensors` in it stands for that file.

    Raises:
        UsageError: as `fetched`.
        CheckpointError: the file of the starter is missing, or not the one that came with the package; or as
            `fetched`.
    """
    if isinstance(model, str) and is_address(model):
        return fetched(model)
    if model != STARTER:
        handed_on = Path(model, WEIGHTS)
        return handed_on if handed_on.is_file() else Path(model)
    try:
        digest = file_digest(STARTER_FILE)
    except OSError as error:
        raise CheckpointError(f"{STARTER_FILE}: cannot be read ({error.strerror}); install fundus-seg again") from error
    if digest != STARTER_SHA256:
        raise CheckpointError(f"{STARTER_FILE}: not the file that came with fundus-seg; install it again")
    return STARTER_FILE
