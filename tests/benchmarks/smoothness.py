"""How steeply the last pair changes along random paths of the protons, with strain: is there a jump anywhere?

    python tests/benchmarks/smoothness.py sc fcc bcc cs-iv diamond --number 8 --paths 4

Each path moves all protons of a crystal along one random direction, up to 0.5 bohr root mean square, while the cell is
strained. Along it the pair between basis functions, its share of closed shells and the fillings are computed at 40
points; the interval with the largest change is halved until it is 1e-8 bohr long. A threshold anywhere in the code
leaves a change of order one there; a continuous function leaves its slope times 1e-8. Host only, some seconds a path.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

import fnqs
from fnqs.ansatz.orbital_basis import make_orbital_basis
from fnqs_data.generate.crystals import lattice

FARTHEST, POINTS, SHORTEST = 0.5, 40, 1e-8
"""End of a path (bohr, root mean square), points along it, and the length at which halving ends."""


def state(cell: np.ndarray, protons: np.ndarray, model: fnqs.ModelConfig) -> tuple[np.ndarray, float]:
    """Pair between basis functions, relative to the largest with the closed shells' share, and that share."""
    shell = make_orbital_basis(fnqs.make_configuration(cell, protons), model).shell
    return shell.levels @ shell.state @ shell.levels.T, float(shell.closed)


def change(one: tuple, other: tuple) -> float:
    """Largest relative change of the pair or of the closed shells' share, whatever the sign of psi."""
    sign = 1 if np.sum(one[0] * other[0]) + one[1] * other[1] >= 0 else -1
    size = max(1e-3, np.abs(one[0]).max(), np.abs(other[0]).max())
    weight = np.sqrt(max(0.0, 1 - min(one[1], other[1]) ** 2))
    return max(weight * np.abs(one[0] - sign * other[0]).max() / size, abs(one[1] - sign * other[1]))


def main() -> None:
    """Walk the paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="+")
    parser.add_argument("--number", type=int, default=8)
    parser.add_argument("--paths", type=int, default=3, help="of each phase (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fnqs.configure()
    model, generator = fnqs.ModelConfig(), np.random.default_rng(options.seed)
    for phase in options.phases:
        for _ in range(options.paths):
            radius = generator.uniform(1.2, 2.5)
            cell, sites = (
                np.asarray(x) * radius * (4 * np.pi / 3) ** (1 / 3) for x in lattice(phase, options.number)[0]
            )
            direction = generator.normal(size=sites.shape)
            direction /= np.sqrt(np.mean(np.sum(direction**2, axis=1)))
            strain = 0.05 * generator.normal(size=(3, 3))

            def along(distance, cell=cell, sites=sites, direction=direction, strain=strain):
                deformed = np.eye(3) + distance * strain
                return state(cell @ deformed, (sites + distance * direction) @ deformed, model)

            places = np.linspace(1e-3, FARTHEST, POINTS)
            states = [along(place) for place in places]
            changes = [change(*both) for both in itertools.pairwise(states)]
            worst = int(np.argmax(changes))
            (low, high), (before, after) = places[worst : worst + 2], states[worst : worst + 2]
            while high - low > SHORTEST:
                middle = 0.5 * (low + high)
                found = along(middle)
                if change(before, found) > change(found, after):
                    high, after = middle, found
                else:
                    low, before = middle, found
            print(
                f"{phase:9} N = {options.number}, r_s = {radius:.2f} bohr: largest step {changes[worst]:.3f}, at "
                f"{low:.5f} bohr {change(before, after):.1e} in {high - low:.0e} bohr; closed shells {before[1]:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
