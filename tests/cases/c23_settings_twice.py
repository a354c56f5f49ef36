"""A settings file in which a section stands twice, and one with a leading zero."""

from common import out_folder

out = out_folder()
(out / "twice.yaml").write_text(
    "preset: tiny\nholdout: A\ntrain:\n  epochs: 7\n  batch_per_domain: 4\n"
    "optim: {lr: 1e-3}\ntrain:\n  augment: scale-crop\n"
)
(out / "zero.yaml").write_text("preset: tiny\nholdout: A\nseed: 010\ntrain: {epochs: 040}\n")
