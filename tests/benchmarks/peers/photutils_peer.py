"""photutils image segmentation."""

import numpy as np
from astropy.convolution import convolve
from astropy.stats import SigmaClip
from common import Image, beam_kernel, isophotal
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.background import Background2D, MedianBackground
from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

SETTINGS = [
    {"threshold": t, "minarea": m, "filter": f, "deblend": d}
    for t, m, f, d in [(t, 1, False, d) for t in (2.75, 3.0, 3.25, 3.5, 4.0, 4.5) for d in (False, True)]
    + [(4.25, 1, False, False), (3.0, 5, True, True), (4.0, 3, False, True)]
]


def run(image: Image, setting: dict, folder) -> dict:
    data = image.data
    mask = ~np.isfinite(data)
    background = Background2D(
        data, 64, mask=mask, filter_size=3, sigma_clip=SigmaClip(3.0), bkg_estimator=MedianBackground()
    )
    data = np.where(mask, 0.0, data - background.background)
    rms = background.background_rms
    smooth = convolve(data, beam_kernel(image), normalize_kernel=True) if setting["filter"] else data
    level = setting["threshold"] * rms
    if setting["filter"]:
        level = level * np.std(smooth[np.abs(smooth) < 3 * rms]) / np.median(rms)
    segments = detect_sources(smooth, level, setting["minarea"], mask=mask)
    if setting["deblend"]:
        segments = deblend_sources(smooth, segments, max(setting["minarea"], 3), n_levels=32, contrast=0.005)
    table = SourceCatalog(data, segments, convolved_data=smooth)
    x, y = table.x_centroid, table.y_centroid
    local = rms[
        np.clip(np.rint(y).astype(int), 0, data.shape[0] - 1),
        np.clip(np.rint(x).astype(int), 0, data.shape[1] - 1),
    ]
    beam = image.beam_pixels[0]
    circle = aperture_photometry(data, CircularAperture(np.column_stack([x, y]), beam))["aperture_sum"]
    return isophotal(
        image, x=x, y=y, a=np.asarray(table.semimajor_axis.value), b=np.asarray(table.semiminor_axis.value),
        theta=np.radians(np.asarray(table.orientation.value)), peak=np.asarray(table.max_value),
        threshold=setting["threshold"] * local, rms=local,
        fluxes={"auto": table.kron_flux, "iso": table.segment_flux, "aperture": np.asarray(circle) / (1 -
        2.0**-4)},
    )  # fmt: skip
