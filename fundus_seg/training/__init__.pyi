from .fit import train
from .method import Method
from .observer import Observer

__all__ = ["Method", "Observer", "train"]
