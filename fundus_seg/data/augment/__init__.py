"""The built-in augmentations. Nothing outside this folder imports albumentations."""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network for its latest version at import
