"""sep (SExtractor's core as a library)."""

import numpy as np
import sep
from common import Image, beam_kernel, isophotal

SETTINGS = [
    {"threshold": t, "minarea": m, "filter": f}
    for t, m, f in [(t, 1, False) for t in (2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.25, 4.5)]
    + [(3.0, 5, True), (2.5, 3, False), (3.0, 3, False), (3.5, 3, False), (4.0, 3, False)]
]


def run(image: Image, setting: dict, folder) -> dict:
    data = image.data.copy()
    mask = ~np.isfinite(data)
    data[mask] = 0.0
    background = sep.Background(data, mask=mask, bw=64, bh=64)
    data -= background.back()
    rms = background.rms()
    sep.set_extract_pixstack(max(300_000, data.size // 4))
    kernel = beam_kernel(image) if setting["filter"] else None
    found = sep.extract(
        data, setting["threshold"], err=rms, mask=mask, minarea=setting["minarea"], filter_kernel=kernel
    )
    # Two bad ellipses among thousands make the aperture sums raise for all.
    found = found[np.isfinite(found["a"] * found["b"] * found["theta"]) & (found["b"] > 0)]
    x, y, a, b, theta = (found[name] for name in ("x", "y", "a", "b", "theta"))
    theta = np.clip(theta, -np.pi / 2, np.pi / 2)
    beam = image.beam_pixels[0]
    kron, _ = sep.kron_radius(data, x, y, a, b, theta, 6.0)
    kron = np.clip(np.nan_to_num(kron, nan=1.0), 1.0, 6.0)
    auto, _, _ = sep.sum_ellipse(data, x, y, a, b, theta, 2.5 * kron, subpix=1)
    circle, _, _ = sep.sum_circle(data, x, y, beam)
    local = rms[
        np.clip(np.rint(y).astype(int), 0, data.shape[0] - 1),
        np.clip(np.rint(x).astype(int), 0, data.shape[1] - 1),
    ]
    return isophotal(
        image, x=x, y=y, a=a, b=b, theta=theta, peak=found["peak"], threshold=found["thresh"], rms=local,
        fluxes={"auto": auto, "iso": found["flux"], "aperture": circle / (1 - 2.0**-4)},
    )  # fmt: skip
