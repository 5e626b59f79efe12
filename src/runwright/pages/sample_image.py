"""A sample as a picture. Without torch, so that reports need not wait for it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def as_image(sample: Sequence[float], shape: Sequence[int]) -> Image.Image | None:
    """Of (H, W), (1, H, W) or (3, H, W), black its lowest value and white its highest; of other shapes none."""
    num_channels = shape[0] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or num_channels not in (1, 3):
        return None
    pixels = np.array(sample, dtype=float).reshape(num_channels, *shape[-2:])
    low, high = pixels.min(), pixels.max()
    levels = ((pixels - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return Image.fromarray(levels[0] if num_channels == 1 else levels.transpose(1, 2, 0))
