from .inference.predict import load_model

__all__ = ["load_model"]
