"""log|psi| where two particles meet and where the nearest image changes: cusps as they must be, and no others."""

import jax.numpy as jnp
import numpy as np
import pytest

real_and_complex = pytest.mark.parametrize("twist", [(0.0, 0.0, 0.0), (0.13, -0.21, 0.4)])


@real_and_complex
@pytest.mark.parametrize("partner", ["proton", "same spin", "opposite spin"])
def test_smooth_at_the_border_of_the_nearest_image(model, twist, partner):
    case = model.case(4, twist)
    cell = case.configuration.cell
    centre = {
        "proton": case.configuration.protons[0],
        "same spin": case.electrons[1],
        "opposite spin": case.electrons[2],
    }[partner]
    # Half a lattice vector away: the nearest image changes there along the direction of the vector.
    border = jnp.asarray(case.electrons).at[0].set(centre + 0.5 * cell[0] + 0.02 * cell[1])
    direction, step = cell[0] / np.linalg.norm(cell[0]), 1e-5
    slopes = [
        model.gradient(case, border.at[0].add(distance * direction))[0] @ direction
        for distance in (-2 * step, -step, step, 2 * step)
    ]
    # Smooth: neighbouring slopes differ by the second derivative times the distance, on the border as off it.
    # A kink of the weakest pair term here would be 1e-3 and more.
    assert slopes[2] - slopes[1] == pytest.approx(2 * (slopes[1] - slopes[0]), abs=1e-8)
    assert abs(slopes[2] - slopes[1]) < 100 * step


def cusp(model, case, place, remove=lambda distance: 0.0):
    """Derivative of the spherical part of log|psi| at coalescence; place(vector) gives the electrons.

    One-sided differences of f(d) = [log|psi|(d) + log|psi|(-d)] / 2, linear in |d| at a cusp; two steps remove
    the term of second order.
    """
    direction = np.array([0.48, -0.6, 0.64])

    def even(distance):
        both = [model.log_psi(case, place(sign * distance * direction))[1] for sign in (1, -1)]
        return np.mean(both) - remove(distance)

    step = 1e-4
    first, second, third = (even(multiple * step) for multiple in (1, 2, 3))
    return (-5 * first + 8 * second - 3 * third) / (2 * step)


CUSP_ERROR = 1e-4
"""Eleven third derivatives, of order 100 for noisy parameters, times the square of a step of 1e-4 bohr: 1e-5."""


@real_and_complex
@pytest.mark.parametrize("electron", [0, 3])
@pytest.mark.parametrize("proton", [0, 2])
def test_electron_proton_cusp(model, twist, electron, proton):
    case = model.case(4, twist, seed=1)  # no node within the distances of the difference
    centre = case.configuration.protons[proton]
    slope = cusp(model, case, lambda d: case.electrons.at[electron].set(centre + d))
    assert slope == pytest.approx(-1, abs=CUSP_ERROR)


@real_and_complex
def test_cusp_of_opposite_spins(model, twist):
    case = model.case(4, twist)
    middle = case.electrons[0]
    slope = cusp(model, case, lambda d: case.electrons.at[0].set(middle + d / 2).at[3].set(middle - d / 2))
    assert slope == pytest.approx(0.5, abs=CUSP_ERROR)


@real_and_complex
@pytest.mark.parametrize("pair", [(0, 1), (2, 3)])
def test_cusp_of_equal_spins(model, twist, pair):
    case = model.case(4, twist)
    middle = case.electrons[pair[0]]

    def place(d):
        return case.electrons.at[pair[0]].set(middle + d / 2).at[pair[1]].set(middle - d / 2)

    # psi vanishes linearly; what is left after that has the cusp.
    assert cusp(model, case, place, remove=np.log) == pytest.approx(0.25, abs=CUSP_ERROR)
