"""Draw docs/images/scenes.png: a few rendered scenes of `rlseq/Captions-v0` with their five references.

python benchmarks/scenes.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import rlseq

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "scenes.png"


def main() -> None:
    """The first four scenes."""
    env: Any = rlseq.make("rlseq/Captions-v0", scenes=4)
    figure = Figure(figsize=(11, 3.4))
    panels = figure.subplots(2, 4, width_ratios=[1, 2.6] * 2).reshape(4, 2)
    figure.subplots_adjust(0, 0.02, 1, 0.98, wspace=0.02, hspace=0.08)
    for item, (image, text) in enumerate(panels):
        image.imshow(env.pictures.table[item].permute(1, 2, 0).numpy())
        (told,) = env.corpus.texts(torch.tensor([item]))
        text.text(0, 0.5, "\n".join(told), va="center", fontsize=8, linespacing=1.8)
        image.axis("off")
        text.axis("off")
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=110)


if __name__ == "__main__":
    main()
