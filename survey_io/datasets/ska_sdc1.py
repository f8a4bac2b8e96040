"""SKA Science Data Challenge 1 as published: images of three bands, training lists and primary beams.

``SKAMid_B{1,2,5}_{8h,100h,1000h}_v3.fits``, ``TrainingSet_B{1,2,5}_v2.txt``, ``PrimaryBeam_B{1,2,5}.fits`` (Bonaldi &
Braun 2018, arXiv:1811.10454; Bonaldi et al. 2021, MNRAS 500, 3821). The lists cover a rectangle of each image, the
training area; fluxes are those before the primary beam.
"""

from __future__ import annotations

from pathlib import Path

from survey_io.datasets.survey import SurveyFiles
from survey_io.errors import InputError, OptionError

BANDS = (1, 2, 5)
DEPTHS = ("8h", "100h", "1000h")
# MHz, and (ra_lo, ra_hi, dec_lo, dec_hi) in degrees of the training area, by band.
FREQUENCY = {1: 560, 2: 1400, 5: 9200}
TRAINING_AREA = {
    1: (-0.6723, 0.0, -29.9400, -29.4061),
    2: (-0.2688, 0.0, -29.9400, -29.7265),
    5: (-0.04092, 0.0, -29.9400, -29.9074),
}


def find_sdc1(folder: str | Path, *, band: int = 1, depth: str = "1000h") -> SurveyFiles:
    """The published files of one band and depth.

    Parameters
    ----------
    folder : path
        Holds the three files; versions in their names may differ.
    band : 1, 2 or 5
        560, 1400 and 9200 MHz.
    depth : "8h", "100h" or "1000h"

    Raises
    ------
    InputError
        When one is missing.
    OptionError
        For a band or depth that there is not.
    """
    if band not in BANDS or depth not in DEPTHS:
        raise OptionError(f"SDC1 has the bands {BANDS} and the depths {', '.join(DEPTHS)}; got {band} and {depth!r}")
    folder = Path(folder)

    def one(what: str, *patterns: str) -> Path:
        found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
        if not found:
            raise InputError(
                f"{folder}: expected the {what} of SDC1 as published ({' or '.join(patterns)}), found none; fetch it "
                "from the challenge's page, or choose another band or depth"
            )
        return found[-1]

    return SurveyFiles(
        one("image", f"SKAMid_B{band}_{depth}_v*.fits", f"SKAMid_B{band}_{depth}.fits"),
        one("training list", f"TrainingSet_B{band}_v*.txt", f"TrainingSet_B{band}.txt"),
        one("primary beam", f"PrimaryBeam_B{band}.fits"),
        TRAINING_AREA[band],
    )
