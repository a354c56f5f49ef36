from .inference.ensemble import load_ensemble
from .inference.predict import load_model
from .version import __version__

__all__ = ["__version__", "load_ensemble", "load_model"]
