from .check import RootCheck, check_root
from .dataset import FundusDataset, Sample
from .init_file import write_domain_file
from .layout import DataRoot, make_phantom, open_root
from .mask_files import MaskPairs, pair_masks

__all__ = [
    "DataRoot",
    "FundusDataset",
    "MaskPairs",
    "RootCheck",
    "Sample",
    "check_root",
    "make_phantom",
    "open_root",
    "pair_masks",
    "write_domain_file",
]
