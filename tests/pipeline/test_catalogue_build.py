"""From pixels to the catalogue: units, sky, binning, primary beam and recommended values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.detections import Detections
from pipeline.catalogue import build_catalogue
from survey_io import Beam, Observation, open_image
from survey_io.columns import IMAGE_COLUMNS, Flag

SNR = np.array([4.0, 10.0, 40.0, 200.0])
N = len(SNR)
CARD = {
    "fit_from": {"major": 20.0, "minor": 20.0, "angle": 100.0},
    "flux_weight": {"snr": [10.0, 40.0], "weight": [0.0, 1.0]},
}


@pytest.fixture
def observation(write_image) -> Observation:
    # Pixels of 1.5 arcsec, north up; beam 9 x 6 arcsec.
    return open_image(write_image(np.zeros((150, 210), np.float32)))


def measurements(**changes: Any) -> dict[str, np.ndarray]:
    values = {
        "x": [20.0, 60.5, 100.0, 180.0], "y": [30.0, 70.25, 100.0, 120.0], "x_err": 0.2, "y_err": 0.4,
        "peak": SNR * 1e-4, "peak_err": 1e-4, "flux": SNR * 1.5e-4, "flux_err": 2e-4,
        "major": 8.0, "minor": 6.0, "theta": np.radians(120.0), "major_err": 0.5, "minor_err": 0.25, "theta_err": 0.1,
        "major_deconv": 4.0, "minor_deconv": 2.0, "theta_deconv": np.radians(120.0), "snr": SNR, "local_rms": 1e-4,
        "n_blend": 0, "flags": 0,
    } | changes  # fmt: skip
    made = {name: np.broadcast_to(np.asarray(v, float), N).copy() for name, v in values.items()}
    return made | {"flags": made["flags"].astype(np.int32), "n_blend": made["n_blend"].astype(np.int32)}


def detections(n: int = N) -> Detections:
    values = {
        "flux_snr": 2 * SNR, "flux_error": 0.1 * SNR, "major": 5.0, "minor": 3.0, "major_scale": 1.0,
        "theta": np.radians(90.0), "position_error": 0.3,
    }  # fmt: skip
    params = {name: np.broadcast_to(np.asarray(v, np.float32), N).copy()[:n] for name, v in values.items()}
    return Detections(np.zeros((n, 2)), np.ones((n, 2)), np.zeros(n), np.zeros((n, 2), int), params)


def build(observation: Observation, **changes: Any):
    options = {
        "factor": 1, "background": np.full(N, 2e-5), "p_real": np.full(N, 0.9), "gain": None, "has_network": True,
        "calibration": CARD,
    }  # fmt: skip
    measured = changes.pop("measured", measurements())
    return build_catalogue(observation, changes.pop("found", detections()), measured, **{**options, **changes})


def test_columns_units_and_sky(observation: Observation) -> None:
    table = build(observation)
    assert table.colnames == [column.name for column in IMAGE_COLUMNS]
    assert all(str(table[c.name].unit or "") == (c.unit or "").replace("Jy/beam", "Jy / beam") for c in IMAGE_COLUMNS)
    ra, dec = observation.pixel_to_sky(table["x"], table["y"])
    np.testing.assert_allclose([table["ra"], table["dec"]], [ra, dec])
    np.testing.assert_allclose(table["maj"], 12.0, rtol=1e-3)
    np.testing.assert_allclose(table["min"], 9.0, rtol=1e-3)
    # North up, east left: 90 degrees from +x is north.
    np.testing.assert_allclose(table["pa"], 30.0, atol=0.05)
    np.testing.assert_allclose(table["ra_err"], 0.3, rtol=1e-2)
    np.testing.assert_allclose(table["dec_err"], 0.6, rtol=1e-2)
    np.testing.assert_allclose(table["maj_err"], 0.75, rtol=1e-3)
    np.testing.assert_allclose(table["pa_err"], np.degrees(0.1), rtol=1e-4)
    np.testing.assert_allclose(table["flux"], SNR * 1.5e-4, rtol=1e-6)
    np.testing.assert_allclose(table["flux_net"], 2 * SNR * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(table["maj_net"], 7.5, rtol=1e-3)
    np.testing.assert_allclose(np.minimum(table["pa_net"], 180 - table["pa_net"]), 0.0, atol=0.1)
    assert table["source_id"].tolist() == [1, 2, 3, 4] and (table["pb_gain"] == 1).all()
    assert not table["flags"].any() and table["score"] == pytest.approx(0.5)


def test_recommended_values_switch_at_the_signal_to_noise_of_the_card(observation: Observation) -> None:
    table = build(observation)
    net, fit = np.asarray(table["flux_net"]), np.asarray(table["flux"])
    np.testing.assert_allclose(table["flux_best"], [net[0], net[1], fit[2], fit[3]], rtol=1e-5)
    np.testing.assert_array_equal(table["maj_best"], [*table["maj_net"][:2], *table["maj_deconv"][2:]])
    np.testing.assert_array_equal(table["min_best"], [*table["min_net"][:2], *table["min_deconv"][2:]])
    np.testing.assert_array_equal(table["pa_best"], [*table["pa_net"][:3], table["pa_deconv"][3]])


def test_between_its_ends_the_flux_is_a_weighted_geometric_mean(observation: Observation) -> None:
    table = build(observation, measured=measurements(snr=20.0))
    expected = np.sqrt(np.asarray(table["flux_net"]) * np.asarray(table["flux"]))
    np.testing.assert_allclose(table["flux_best"], expected, rtol=1e-4)


@pytest.mark.parametrize("flux", [np.nan, -3e-4, 7.0])
@pytest.mark.parametrize("flag", [Flag.FIT_FAILED, Flag.BLANK])
def test_a_failed_fit_leaves_the_networks_values_at_any_signal(observation: Observation, flag, flux: float) -> None:
    table = build(observation, measured=measurements(flags=int(flag), snr=1e3, flux=flux))
    for name in ("flux", "maj", "min", "pa"):
        np.testing.assert_allclose(table[f"{name}_best"], table[f"{name}_net"], rtol=1e-5, err_msg=name)


def test_unresolved_sources_keep_the_networks_guess(observation: Observation) -> None:
    unresolved = measurements(major_deconv=0.0, minor_deconv=0.0, theta_deconv=np.nan, snr=1e3)
    table = build(observation, measured=unresolved)
    assert (table["maj_deconv"] == 0).all() and np.isnan(table["pa_deconv"]).all()
    np.testing.assert_array_equal(table["maj_best"], table["maj_net"])
    np.testing.assert_array_equal(table["pa_best"], table["pa_net"])
    # Only the minor axis unresolved: the network's, but never above the fitted major axis.
    needle = build(observation, measured=measurements(major_deconv=1.5, minor_deconv=0.0, snr=1e3))
    np.testing.assert_allclose(needle["maj_best"], 2.25, rtol=1e-3)
    np.testing.assert_array_equal(needle["min_best"], needle["maj_best"])
    assert (needle["min_deconv"] == 0).all()


def test_without_a_network_the_fit_is_all(observation: Observation) -> None:
    table = build(observation, has_network=False)
    for name, source in (("flux", "flux"), ("maj", "maj_deconv"), ("min", "min_deconv"), ("pa", "pa_deconv")):
        np.testing.assert_array_equal(table[f"{name}_best"], table[source])
    assert np.isnan(table["flux_net"]).all() and np.isnan(table["maj_net"]).all()
    unresolved = measurements(major_deconv=0.0, minor_deconv=0.0, theta_deconv=np.nan)
    table = build(observation, has_network=False, measured=unresolved)
    np.testing.assert_array_equal(table["pa_best"], table["pa"])


def test_a_primary_beam_divides_fluxes_and_flags_where_it_is_low(observation: Observation) -> None:
    gain = np.array([1.0, 0.5, 0.19, 0.21])
    plain, table = build(observation), build(observation, gain=gain)
    for name in (
        "peak_flux",
        "peak_flux_err",
        "flux",
        "flux_err",
        "local_rms",
        "flux_net",
        "flux_net_err",
        "flux_best",
    ):
        np.testing.assert_allclose(table[name], np.asarray(plain[name]) / gain, rtol=1e-5, err_msg=name)
    for name in ("snr", "maj", "ra", "background"):
        np.testing.assert_array_equal(table[name], plain[name])
    np.testing.assert_allclose(table["pb_gain"], gain, rtol=1e-6)
    assert table["flags"].tolist() == [0, 0, int(Flag.LOW_PRIMARY_BEAM), 0]


def test_binned_detections_are_given_in_pixels_of_the_image(observation: Observation) -> None:
    measured = measurements(x=[2.0, 10.0, 20.0, 40.0], y=[3.0, 8.0, 11.0, 30.0])
    table = build(observation, factor=4, measured=measured)
    np.testing.assert_allclose(table["x"], [9.5, 41.5, 81.5, 161.5])
    np.testing.assert_allclose(table["y"], [13.5, 33.5, 45.5, 121.5])
    np.testing.assert_allclose(table["maj"], 48.0, rtol=1e-3)
    np.testing.assert_allclose(table["maj_net"], 30.0, rtol=1e-3)
    np.testing.assert_allclose(table["maj_err"], 3.0, rtol=1e-3)
    np.testing.assert_allclose(table["ra_err"], 1.2, rtol=1e-2)
    ra, dec = observation.pixel_to_sky(table["x"], table["y"])
    np.testing.assert_allclose([table["ra"], table["dec"]], [ra, dec])


@pytest.mark.parametrize(("unit", "factor"), [("mJy/beam", 1e-3), ("uJy/beam", 1e-6)])
def test_other_units_come_out_in_jansky(write_image, unit: str, factor: float) -> None:
    observation = open_image(write_image(np.zeros((150, 210), np.float32), BUNIT=unit))
    table = build(observation)
    np.testing.assert_allclose(table["flux"], SNR * 1.5e-4 * factor, rtol=1e-6)
    np.testing.assert_allclose(table["background"], 2e-5 * factor, rtol=1e-6)
    assert str(table["flux"].unit) == "Jy" and str(table["peak_flux"].unit) == "Jy / beam"


def test_units_that_do_not_convert_stay(write_image) -> None:
    observation = open_image(write_image(np.zeros((150, 210), np.float32), BUNIT="adu"))
    table = build(observation)
    np.testing.assert_allclose(table["peak_flux"], SNR * 1e-4, rtol=1e-6)
    assert str(table["peak_flux"].unit) == "adu" and str(table["flux"].unit) == "adu beam"


def test_an_estimated_beam_is_flagged(observation: Observation) -> None:
    beam = observation.beam
    assumed = replace(observation, beam=Beam(beam.major, beam.minor, beam.pa, "estimated"))
    assert (build(assumed, measured=measurements(flags=1))["flags"] == (Flag.BEAM_ASSUMED | Flag.EDGE)).all()


def test_no_sources_make_an_empty_catalogue(observation: Observation) -> None:
    measured = {name: value[:0] for name, value in measurements().items()}
    none = np.empty(0)
    for network in (True, False):
        table = build(
            observation, found=detections(0), measured=measured, background=none, p_real=none, has_network=network
        )
        assert len(table) == 0 and table.colnames == [column.name for column in IMAGE_COLUMNS]
