"""Pictures of samples, mistakes and the confusion matrix, drawn with Pillow, 30 times as fast as Matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

# In pixels: a cell of the confusion matrix, an image, and the two lines of text above it. TensorBoard does not scale
# pictures up to 340 wide.
CELL, SIDE, CAPTION = 30, 96, 30
INK, PAPER, BLUE = (0, 0, 0), (255, 255, 255), (8, 81, 156)


@dataclass
class Mistake:
    """A test sample that was classified wrongly; `sample` is the model's input, flattened."""

    index: int
    target: int
    predicted: int
    probability: float
    sample_shape: list[int]
    sample: list[float]


def as_image(sample: Sequence[float], shape: Sequence[int]) -> Image.Image | None:
    """A sample of (H, W), (1, H, W) or (3, H, W), from black for its lowest value to white; None for other shapes."""
    num_channels = shape[0] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or num_channels not in (1, 3):
        return None
    pixels = np.array(sample, dtype=float).reshape(num_channels, *shape[-2:])
    low, high = pixels.min(), pixels.max()
    levels = ((pixels - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return Image.fromarray(levels[0] if num_channels == 1 else levels.transpose(1, 2, 0))


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Counts by true class (rows) and predicted class, shaded by the root of the share so that rare mistakes show."""
    font = ImageFont.load_default(12)
    titles = [name if name == str(i) else f"{name} {i}" for i, name in enumerate(names)]
    left, top = 24 + max(round(font.getlength(title)) for title in titles), 40
    picture = Image.new("RGB", (left + CELL * len(names) + 8, top + CELL * len(names) + 8), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((left + CELL * len(names) / 2, 12), "predicted", INK, font, anchor="mm")
    draw.text((8, top - 12), "true", INK, font, anchor="lm")
    for i, (row, title) in enumerate(zip(counts, titles, strict=True)):
        y = top + CELL * i
        draw.text((left - 8, y + CELL / 2), title, INK, font, anchor="rm")
        draw.text((left + CELL * (i + 0.5), top - 10), str(i), INK, font, anchor="mm")
        for j, count in enumerate(row):
            x, shade = left + CELL * j, sqrt(count / max(1, sum(row)))
            color = tuple(round(white + shade * (blue - white)) for white, blue in zip(PAPER, BLUE, strict=True))
            draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), color)
            if count:
                ink = PAPER if shade > 0.6 else INK
                draw.text((x + CELL / 2 - 1, y + CELL / 2 - 1), str(count), ink, font, anchor="mm")
    return picture


def draw_mistakes(mistakes: Sequence[Mistake], names: Sequence[str]) -> Image.Image:
    """Images, (H, W) or (3, H, W), with the true class, the predicted class and its probability."""
    font = ImageFont.load_default(11)
    num_columns = ceil(sqrt(len(mistakes)))
    width, height = SIDE + 16, SIDE + CAPTION + 10
    picture = Image.new("RGB", (width * num_columns, height * ceil(len(mistakes) / num_columns)), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, mistake in enumerate(mistakes):
        x, y = 8 + width * (i % num_columns), 4 + height * (i // num_columns)
        if image := as_image(mistake.sample, mistake.sample_shape):
            picture.paste(ImageOps.pad(image, (SIDE, SIDE), Image.Resampling.NEAREST), (x, y + CAPTION))
        caption = f"true {names[mistake.target]}\npred {names[mistake.predicted]}, {mistake.probability:.0%}"
        draw.multiline_text((x, y), caption, INK, font)
    return picture
