"""From samples to numbers with error bars.

For real or complex psi, any set of parameters, and a parameter x of the configuration,

    dE/dx = <dH/dx> + 2 Re <conj(E_L - E) d log psi / dx>

is the derivative of the variational energy itself. The kinetic energy being Hermitian, dH/dx is that of the Coulomb
energy for a proton, and for a strain e, r -> r (1 + e), the same minus sum_i Re conj(d_a log psi) d_b log psi.
The second term, the covariance, vanishes where psi is an eigenstate, or optimal among all psi deformed so. Without it
and with the trace taken, the stress is the virial theorem, P = (2 T + V) / 3 Omega.
"""

from __future__ import annotations

import math

import numpy as np

from fnqs.observables.correlations import pairs_without_correlation, proton_pair_counts
from fnqs.periodic.cell import cell_volume
from fnqs.system import make_ewald
from fnqs_eval.energies.statistics import reblocked_error
from fnqs_eval.observables.deformations import STRAINS
from fnqs_eval.observables.result import Quantity
from fnqs_eval.observables.sample import Samples

ROUGH = 0.2
"""Second differences of log psi, relative to first ones, above which a derivative is doubted."""

TAIL = 0.01
"""Share of the largest samples whose decay is the tail exponent."""


def quantities(samples: Samples) -> dict[str, Quantity]:
    """All scalar quantities, the stress and the forces, by name."""
    series, record = samples.series, samples.record
    number, volume = record.n_atoms, abs(float(cell_volume(np.asarray(record.configuration.cell))))
    protons = float(samples.protons[0])
    kinetic = series["kinetic"]
    potential = series["electron_electron"] + series["electron_proton"] + protons
    found = {
        "energy": _mean((kinetic + potential) / number, "Ha per atom"),
        "kinetic": _mean(kinetic / number, "Ha per atom"),
        "potential": _mean(potential / number, "Ha per atom"),
        "electron_electron": _mean(series["electron_electron"] / number, "Ha per atom"),
        "electron_proton": _mean(series["electron_proton"] / number, "Ha per atom"),
        "proton_proton": Quantity("Ha per atom", protons / number, 0.0),
        "variance": Quantity("Ha^2 per atom", float(np.var(kinetic + potential)) / number, None),
        "virial_pressure": _mean((2 * kinetic + potential) / (3 * volume), "Ha/bohr^3"),
        "spin_squared": _mean(series["spin_squared"], "1"),
        "near_nodes": Quantity("share of samples", float(np.mean(series["node_factor"] < 1)), None),
    }
    if "log_slope" in series:
        covariance = _covariances(series, kinetic + potential)
        stress = _stress(samples, covariance[..., :6]) / volume
        found["stress"] = _means(stress, "Ha/bohr^3, Voigt: xx yy zz yz xz xy; positive under tension")
        found["pressure"] = _mean(-np.mean(stress[..., :3], axis=-1), "Ha/bohr^3")
        correction = -np.mean(covariance[..., :3], axis=-1) / volume
        found["pressure_covariance"] = _mean(correction, "Ha/bohr^3")
        found["roughness"] = Quantity("1", _roughness(series), None)
        if covariance.shape[-1] > 6:
            found |= _forces(samples, covariance[..., 6:])
    return found


def curves(samples: Samples) -> dict[str, Quantity]:
    """Pair correlation functions, structure factors, momenta: values with the walkers' own spread as error."""
    if not samples.sums:
        return {}
    record, count = samples.record, samples.count
    number, volume = record.n_atoms, abs(float(cell_volume(np.asarray(record.configuration.cell))))
    of_walkers = {name: values for name, values in samples.sums.items() if name != "voxels"}
    finite = [np.all(np.isfinite(values), axis=tuple(range(1, values.ndim))) for values in of_walkers.values()]
    sums = {name: values[np.all(finite, axis=0)] / count for name, values in of_walkers.items()}
    ideal = pairs_without_correlation(samples.edges, number, volume)
    centres = 0.5 * (samples.edges[1:] + samples.edges[:-1])
    found = {"distance": Quantity("bohr", centres, None)}
    for place, name in enumerate(("g_equal_spins", "g_opposite_spins", "g_electron_proton")):
        if ideal[place, 0] > 0:
            found[name] = _over_walkers(sums["pairs"][:, place] / ideal[place], "1")
    lists = make_ewald(record.configuration)
    found["g_proton_proton"] = Quantity("1", proton_pair_counts(lists, samples.edges) / ideal[3], None)
    found["wave"] = Quantity("1/bohr", samples.waves, None)
    found["s_total"] = _over_walkers(sums["squares"][:, 0] / number, "1")
    found["s_spin"] = _over_walkers(sums["squares"][:, 1] / number, "1")
    found["s_fluctuating"] = _fluctuating(sums["squares"][:, 0], sums["density_waves"], number)
    found["density_wave"] = _over_walkers(sums["density_waves"].swapaxes(1, 2), "electrons, real and imaginary part")
    structure = np.exp(1j * np.asarray(record.configuration.protons) @ samples.waves.T).sum(axis=0)
    found["s_protons"] = Quantity("1", np.abs(structure) ** 2 / number, None)
    found["momentum"] = Quantity("1/bohr", samples.momenta, None)
    found["occupation"] = _over_walkers(sums["occupations"], "1, of one spin")
    return found


def density(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Density of all electrons and of up minus down in 1/bohr^3 on the voxels: two arrays of `Samples.shape`."""
    walkers = len(samples.sums["pairs"])
    volume = abs(float(cell_volume(samples.cell))) / math.prod(samples.shape)
    up, down = (part.reshape(samples.shape) / (walkers * samples.count * volume) for part in samples.sums["voxels"])
    return up + down, up - down


def tail_exponent(values: np.ndarray) -> float:
    """Exponent a of P(|x| > X) ~ X^-a from the largest samples (Hill, Ann. Stat. 3, 1163 (1975)).

    The variance is finite for a > 2.
    """
    sizes = np.sort(np.abs(values - np.mean(values)).ravel())
    most = max(10, int(TAIL * len(sizes)))
    if len(sizes) <= most or sizes[-most - 1] == 0:
        return math.nan
    return float(1 / np.mean(np.log(sizes[-most:] / sizes[-most - 1])))


def _covariances(series: dict[str, np.ndarray], energies: np.ndarray) -> np.ndarray:
    """2 Re conj(E_L - E)(d log psi - mean), (T, n, D), mended at nodes."""
    slopes, turns = series["log_slope"], series["phase_slope"]
    apart = (energies - np.mean(energies))[..., None]
    real = apart * (slopes - np.mean(slopes, axis=(0, 1)))
    imaginary = series["kinetic_imaginary"][..., None] * (turns - np.mean(turns, axis=(0, 1)))
    return 2 * series["node_factor"][..., None] * (real + imaginary)


def _stress(samples: Samples, covariance: np.ndarray) -> np.ndarray:
    """Sum up the derivative of the energy by strain in Ha, (T, n, 6)."""
    series = samples.series
    tensor = series["kinetic_tensor"]
    trace = np.trace(tensor, axis1=-2, axis2=-1)
    columns = []
    for place, (first, second) in enumerate(STRAINS):
        same = float(first == second)
        # The trace is taken from the Laplacian, whose variance is finite; the rest is mended at the nodes.
        kinetic = series["node_factor"] * (tensor[..., first, second] - same * trace / 3)
        kinetic = kinetic + same * 2 * series["kinetic"] / 3
        coulomb = series["coulomb_strain"][..., first, second] + float(samples.protons[2][first, second])
        columns.append(coulomb - kinetic + covariance[..., place])
    return np.stack(columns, axis=-1)


def _forces(samples: Samples, covariance: np.ndarray) -> dict[str, Quantity]:
    series = samples.series
    number = samples.record.n_atoms
    own = np.asarray(samples.protons[1])
    covariance = covariance.reshape(*covariance.shape[:2], number, 3)
    forces = -(series["slope"] + own + covariance)
    net = np.sum(forces, axis=2)
    unit = "Ha/bohr"
    held = _means(-(series["bare_slope"] + own).reshape(*forces.shape[:2], -1), unit)
    balanced = forces - net[:, :, None] / number
    flat = _means(balanced.reshape(*forces.shape[:2], -1), unit)
    return {
        # The whole has no force on it; what sampling gives it is taken off all protons alike.
        "forces": Quantity(
            unit, np.reshape(flat.values, (number, 3)), np.reshape(np.asarray(flat.errors), (number, 3))
        ),
        "net_force": _means(net, unit),
        "force_covariance": _reshaped(_means(-covariance.reshape(*forces.shape[:2], -1), unit), number),
        "bare_hellmann_feynman": _reshaped(held, number),
        "force_tail": Quantity("1", tail_exponent(balanced), None),
        "bare_tail": Quantity("1", tail_exponent(series["bare_slope"]), None),
    }


def _reshaped(found: Quantity, number: int) -> Quantity:
    return Quantity(
        found.unit, np.reshape(found.values, (number, 3)), np.reshape(np.asarray(found.errors), (number, 3))
    )


def _roughness(series: dict[str, np.ndarray]) -> np.ndarray:
    """(D,) spread of second differences over that of first ones: step times curvature where psi is smooth, 1 at a kink.

    The median of distances from the median counts, so that single walkers near nodes do not.
    """

    def spread(values: np.ndarray) -> np.ndarray:
        return np.median(np.abs(values - np.median(values, axis=(0, 1))), axis=(0, 1))

    return spread(series["log_bend"]) / np.maximum(spread(series["log_slope"]), 1e-12)


def _fluctuating(squares: np.ndarray, waves: np.ndarray, number: int) -> Quantity:
    """(<|rho|^2> - |<rho>|^2) / N; what the noise adds to the square of the mean is taken off."""
    walkers = len(squares)
    mean = np.mean(waves, axis=0)
    noise = np.sum(np.var(waves, axis=0, ddof=1), axis=0) / walkers if walkers > 1 else 0.0
    crystal = np.sum(mean**2, axis=0) - noise
    linear = (squares - 2 * np.einsum("wcg,cg->wg", waves, mean)) / number
    error = np.std(linear, axis=0, ddof=1) / math.sqrt(walkers) if walkers > 1 else np.full(len(crystal), math.nan)
    return Quantity("1", (np.mean(squares, axis=0) - crystal) / number, error)


def _over_walkers(values: np.ndarray, unit: str) -> Quantity:
    walkers = len(values)
    error = np.std(values, axis=0, ddof=1) / math.sqrt(walkers) if walkers > 1 else np.full(values.shape[1:], math.nan)
    return Quantity(unit, np.mean(values, axis=0), error)


def _mean(series: np.ndarray, unit: str) -> Quantity:
    if not series.size:
        return Quantity(unit, math.nan, math.nan)
    estimate = reblocked_error(series)
    return Quantity(unit, estimate.mean, estimate.error)


def _means(series: np.ndarray, unit: str) -> Quantity:
    """Of series (T, n, M)."""
    found = [_mean(series[..., place], unit) for place in range(series.shape[-1])]
    return Quantity(unit, np.array([one.values for one in found]), np.array([one.errors for one in found]))
