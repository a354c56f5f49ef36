from .folder import predict_folder
from .roi import Roi

__all__ = ["Roi", "predict_folder"]
