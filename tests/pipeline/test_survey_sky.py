"""Cone searches against the distance to every source, where HEALPix and right ascension are awkward, too."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from pipeline.survey import StoreError, SurveyStore, open_store
from pipeline.survey.schema import source
from pipeline.survey.sky import cone_ranges, healpix_number, separation
from survey_io.errors import OptionError

# The poles, right ascension 0, corners of base cells, and places without anything special.
CENTRES = [
    (0.0, 90.0), (123.0, -90.0), (0.0, 0.0), (359.9999, 10.0), (0.0001, -41.81), (45.0, 41.8103149), (90.0, 0.0),
    (200.0, 89.9), (53.1, -27.8), (290.0, -66.4), (-1.0, 30.0), (719.5, -5.0),
]  # fmt: skip
RADII = [0.0, 1e-6, 1 / 3600, 0.05, 0.7, 3.0, 20.0, 59.0, 61.0, 120.0, 179.99, 180.0]


def positions() -> np.ndarray:
    """The whole sky thinly, and around every centre at all distances."""
    rng = np.random.default_rng(8)
    ra, dec = [rng.uniform(0, 360, 1500)], [np.degrees(np.arcsin(rng.uniform(-1, 1, 1500)))]
    for centre in CENTRES:
        at = SkyCoord(*centre, unit="deg")
        around = at.directional_offset_by(
            rng.uniform(0, 360, 120) * u.deg, 10 ** rng.uniform(-7, 2.2, 120) * u.deg
        )
        ra += [around.ra.deg, [centre[0] % 360]]
        dec += [around.dec.deg, [centre[1]]]
    return np.array([np.concatenate(ra), np.concatenate(dec)])





def exact(centre: tuple[float, float], sky: np.ndarray) -> np.ndarray:
    """Distances in degrees by the chord, another formula than the code's."""
    vectors = [
        np.array([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)])
        for a, b in (np.radians(centre), np.radians(sky))
    ]
    chord = np.linalg.norm(vectors[1] - vectors[0][:, None], axis=0)
    return np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1)))


def test_ranges_lose_nothing() -> None:
    sky = positions()
    numbers = healpix_number(*sky)
    for centre in CENTRES:
        distance = separation(*centre, *sky)
        np.testing.assert_allclose(distance, exact(centre, sky), atol=2e-6)
        for radius in RADII:
            ranges = cone_ranges(*centre, radius)
            if ranges is None:
                assert radius > 60
                continue
            assert len(ranges) < 60
            found = np.zeros(len(numbers), bool)
            for first, last in ranges:
                found |= (numbers >= first) & (numbers <= last)
            assert found[distance <= radius].all(), (centre, radius)


@pytest.fixture
def store(store_url: str) -> SurveyStore:
    with open_store(store_url) as store:
        yield store


def record(store: SurveyStore, table: Table) -> int:
    return store.record({"input": {"path": "/data/sky.fits", "sha256": "a", "shape": [1, 1]}}, table)


def test_cones_hold_what_lies_within_and_nothing_else(store: SurveyStore) -> None:
    sky = positions()
    record(store, Table({"ra": sky[0], "dec": sky[1], "flux": np.arange(len(sky[0]), dtype=float)}))
    for centre in CENTRES:
        distance = separation(*centre, *sky)
        for radius in RADII:
            wanted = np.flatnonzero(distance <= radius + 1e-12)
            found = store.cone(*centre, radius)
            assert sorted(found["row"]) == wanted.tolist(), (centre, radius)
            assert (np.diff(found["distance"]) >= 0).all()
        assert len(store.cone(*centre, 180)) == len(sky[0])
        # Radius 0 finds the source at exactly that place.
        assert len(store.cone(*centre, 0)) >= 1


def test_nearest_few_and_conditions(store: SurveyStore) -> None:
    sky = positions()
    count = len(sky[0])
    table = Table({"ra": sky[0], "dec": sky[1], "p_real": np.linspace(0, 1, count), "maj": np.ones(count)})
    table["flux"] = np.ones(count)
    table["flux"].unit, table["maj"].unit = "Jy", "arcsec"
    record(store, table)
    everything, few = store.cone(53.1, -27.8, 180), store.cone(53.1, -27.8, 180, limit=7)
    assert few.colnames == everything.colnames
    assert few["id"].tolist() == everything["id"][:7].tolist()
    assert len(store.cone(53.1, -27.8, 180, limit=0)) == 0
    likely = store.cone(53.1, -27.8, 180, where="p_real > 0.5 AND kind = 'image'")
    assert likely["id"].tolist() == store.cone(53.1, -27.8, 180, where=source.c.p_real > 0.5)["id"].tolist()
    assert 0 < len(likely) < count
    units = [str(everything[name].unit) for name in ("ra", "distance", "maj", "flux", "flux_err", "freq")]
    assert units == ["deg", "deg", "arcsec", "Jy", "Jy", "Hz"]
    assert np.isnan(everything["freq"]).all()


def test_what_cannot_be_searched(store: SurveyStore) -> None:
    for arguments, words in (
        ((0, 91, 1), "declination"), ((np.nan, 0, 1), "right ascension"), ((0, 0, -1), "radius"),
        ((0, 0, 181), "radius"), ((0, np.nan, 1), "declination"), ((0, 0, np.nan), "radius"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=words):
            store.cone(*arguments)
    with pytest.raises(OptionError, match="limit"):
        store.cone(0, 0, 1, limit=-1)
    with pytest.raises(StoreError, match="the database refused"):
        store.cone(0, 0, 1, where="nonsense > 1")
    # One statement that reads is all that a condition can be.
    record(store, Table({"ra": [1.0], "dec": [1.0]}))
    for where in ("1 = 1); DROP TABLE source; --", "1 = 1); DELETE FROM source; SELECT (1"):
        with pytest.raises(StoreError):
            store.cone(0, 0, 5, where=where)
    assert len(store.cone(0, 0, 5)) == 1
