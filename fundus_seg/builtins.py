"""Names of everything built in, and the choices that settings, functions and the command line share.

This module imports nothing but `typing`, so that `--help` and the reading of results can use it without torch. Each
table maps a short name to the place of its factory, `package.module:factory`, the form in which plugins are named;
`fundus_seg.plugins.find` imports it. A new operator, loss, augmentation or method is one line here and its code there.
The order of a table is the order of columns and help texts.
"""

from typing import Literal

OPERATORS = {
    "conv": "fundus_seg.models.operators:atrous_conv",
    "depthwise": "fundus_seg.models.operators:depthwise_block",
    "tvconv": "fundus_seg.models.operators:tvconv_block",
    "depthwise-dilated": "fundus_seg.models.operators:dilated_depthwise_block",
    "depthwise-wide": "fundus_seg.models.operators:wide_depthwise_block",
    "untied": "fundus_seg.models.operators:untied_block",
    "linear": "fundus_seg.models.operators:linear_block",
    "coordconv": "fundus_seg.models.operators:coordconv_block",
    "condconv": "fundus_seg.models.compared:condconv_block",
    "weightnet": "fundus_seg.models.compared:weightnet_block",
    "dyconv-dw": "fundus_seg.models.compared:dyconv_depthwise_block",
    "dyconv-pw": "fundus_seg.models.compared:dyconv_pointwise_block",
    "involution": "fundus_seg.models.compared:involution_block",
    "ddf": "fundus_seg.models.compared:ddf_block",
    "sasa": "fundus_seg.models.compared:sasa_block",
    "axial": "fundus_seg.models.compared:axial_block",
    "mlp-mixer": "fundus_seg.models.compared:mlp_mixer",
}
"""What `model.op` takes; a factory is a `fundus_seg.models.operators.Operator`."""

WHOLE_ASPP = ("mlp-mixer",)
"""Those out of the family: they replace the whole ASPP, where the others replace its three spatial branches."""

ANNEALED = ("dyconv-dw", "dyconv-pw")
"""Those with a temperature that falls while they are trained."""

POSITIONAL = ("tvconv", "untied", "linear", "coordconv", "axial", "mlp-mixer")
"""Those that know where in the photograph they are: they treat its left side and its right side differently."""

ABLATIONS = (
    "random-affinity",
    "data-affinity",
    "no-affines",
    "replicate",
    "branch-6",
    "branch-12",
    "branch-18",
    "spatial-transformer",
    "dynamic-bias",
)
"""Parts of `model.ablation`, which take something from `tvconv` or add to it; they combine, as in
`no-affines+replicate`."""

PLACES = ("aspp", "decoder", "encoder-4", "encoder-8", "encoder-16")
"""Parts of `model.placement`, where in the network the operator stands; they combine, as in `aspp+decoder`."""

LOSSES = {
    "bce": "fundus_seg.training.task:binary_cross_entropy",
    "bce-dice": "fundus_seg.training.task:cross_entropy_and_dice",
}
"""What `train.loss` takes; a factory is a `fundus_seg.training.task.Loss`."""

AUGMENTATION_PARTS = {
    "framing": "fundus_seg.data.augment.parts:framing",
    "geometry": "fundus_seg.data.augment.parts:geometry",
    "flip": "fundus_seg.data.augment.parts:flip",
    "colour": "fundus_seg.data.augment.parts:colour",
    "quality": "fundus_seg.data.augment.parts:quality",
    "bigaug": "fundus_seg.data.augment.bigaug:bigaug",
}
"""Augmentations that combine, as in `flip+colour`, in this order; a factory makes an `EachCase` from size and seed."""

AUGMENTATIONS = {
    "none": "fundus_seg.data.augment.released:no_augmentation",
    "scale-crop": "fundus_seg.data.augment.released:scale_crop",
    **AUGMENTATION_PARTS,
}
"""What `train.augment` takes; a factory makes what `fundus_seg.data.transforms` describes, from size and seed."""

Perturbation = Literal["rotate", "shear", "scale", "translate"]
"""How photographs and their true masks are moved to measure how sensitive scores are to it."""

METHODS = {
    "none": "fundus_seg.training.method:Method",
    "mixstyle": "fundus_seg.training.methods.mixstyle:MixStyle",
    "fourier": "fundus_seg.training.methods.fourier:FourierMix",
    "vrex": "fundus_seg.training.methods.vrex:VREx",
    "groupdro": "fundus_seg.training.methods.groupdro:GroupDRO",
    "rsc": "fundus_seg.training.methods.rsc:RSC",
}
"""What `train.method` takes; a factory makes a `fundus_seg.training.Method`."""

Selection = Literal["source-validation", "last", "oracle"]
"""How a run chooses its best checkpoint."""
Schedule = Literal["step", "cosine"]
"""Course of the learning rate over a run."""
Averaging = Literal["none", "ema", "swa", "swad"]
"""Which mean of the network's weights over training is kept beside them."""
Norms = Literal["running", "renewed"]
"""Statistics of batch norms outside training."""
CheckpointName = Literal["best", "last", "average", "oracle"]
"""Which checkpoint of a run is scored."""
Precision = Literal["fp32", "bf16"]
"""What a network computes in; bf16 is autocast, with weights in float32."""
Inference = Literal["resize", "native"]
"""Whether the network sees photographs resized to its training size, or at their own size."""
Views = Literal["none", "flip"]
"""Which further views of a photograph the network sees: none, or its left-right mirror image."""
Split = Literal["train", "test"]
"""Halves of a domain's cases."""
Unannotated = Literal["never", "missing", "empty"]
"""Which cups nobody has annotated: none; those whose binary file is missing; or those without a pixel."""
Missing = Literal["leave-out", "empty"]
"""What becomes of a case without a prediction: it is in no mean, or counts as an empty prediction."""
MaskFormat = Literal["png", "nifti"]
"""File format of predicted masks."""
CasesFormat = Literal["csv", "json", "parquet"]
"""File format of the table of predictions, beside the CSV, which is always written."""
PictureFormat = Literal["jpeg", "png"]
"""File format of overlays: small, or without loss."""
Tracker = Literal["tensorboard", "mlflow"]
"""Services that can show a run while it trains."""

CUP, RIM, BACKGROUND = 0, 128, 255
"""Greys of the areas in the paper's masks: the coding `dofe`, in which PNG masks are written too."""


def positional_part(op: str, encoder: str) -> str | None:
    """Which of a network's operator and encoder knows positions: is one of POSITIONAL, or named after one."""
    return next((part for part in (op, encoder) if part in POSITIONAL or part.partition("-")[0] in POSITIONAL), None)
