"""Infer the displacement field and the class boundary map of the training images (section 4.1).

Reads data/dataset/images, models/irnet/classifier and models/irnet/irnet; writes data/irnet/fields, one .npz per image:
`displacement` (2, h, w) float16, (dy, dx) in cells, and `boundary` (h, w) float16 in 0..1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.irnet.settings import IRNetSettings
from pipelines.irnet.train_classifier import CLASSIFIER
from pipelines.irnet.train_irnet import IRNET, build
from stages.runtime import layout
from stages.runtime.files import read_json, write_npz
from stages.runtime.progress import progress
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

FIELDS = layout.method_data("irnet") / "fields"


def fields(model: Any, pixels: Any, flip: bool) -> tuple[Any, Any]:
    """Displacement (2, h, w) and boundary (h, w) of one (3, H, W) image, averaged with its mirror image if wanted."""
    import torch

    from stages.cues.backbone import Grid, resample

    displacement, boundary = model(pixels[None])
    if not flip:
        return displacement[0], boundary[0]
    mirrored, edge = model(pixels[None].flip(-1))
    mirrored = mirrored * torch.tensor([1.0, -1.0], device=mirrored.device).view(1, 2, 1, 1)
    # Pixel p of the image is pixel width - 1 - p of its mirror image, whose cells lie elsewhere unless they fill it.
    grid, width = model.grid, pixels.shape[-1]
    both = resample(torch.cat([mirrored, edge[:, None]], dim=1), grid, grid, boundary.shape[-2:],
                    (grid, Grid(-grid.stride, width - 1 - grid.origin)))
    return ((displacement + both[:, :2]) / 2)[0], ((boundary + both[:, 2]) / 2)[0]


def main(params: Path) -> None:
    """One image after the other on the device."""
    settings = load_settings(params, runtime=RuntimeSettings, irnet=IRNetSettings)
    import numpy as np
    import torch

    from stages.cues.train import to_tensor
    from stages.labels.images import read_rgb
    from stages.runtime import devices

    images = read_json(layout.WEAK["train"])["images"]
    with Work(__file__, [layout.WEAK["train"], layout.IMAGES, CLASSIFIER / "weights.pt",
                                     IRNET / "weights.pt"],
              [settings.irnet.inference, settings.irnet.network, settings.irnet.grid]) as work, torch.no_grad():
        device = devices.resolve(settings.runtime.device)
        model = build(settings.irnet, device).eval()
        state = torch.load(IRNET / "weights.pt", map_location=device, weights_only=True)
        model.load_state_dict({**model.state_dict(), **state})
        folder = work.subfolder("fields")
        missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").exists()]
        for image in progress(missing, len(missing), "displacement and boundary"):
            pixels = to_tensor(read_rgb(layout.IMAGES / image["file_name"])).to(device)
            displacement, boundary = fields(model, pixels, settings.irnet.inference.flip)
            write_npz(folder / f"{layout.image_key(image)}.npz",
                      displacement=displacement.cpu().numpy().astype(np.float16),
                      boundary=boundary.cpu().numpy().astype(np.float16))
        work.publish({"fields": FIELDS})


if __name__ == "__main__":
    run_stage(main, __doc__)
