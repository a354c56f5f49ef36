from .inference.predict import load_model
from .version import __version__

__all__ = ["__version__", "load_model"]
