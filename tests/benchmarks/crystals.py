"""Train one model on a few crystals from scratch, all in every step, and sample it separately.

    python tests/benchmarks/crystals.py bcc:16:1.7725:2x2x2 bcc:16:2.6588:2x2x2
    python tests/benchmarks/crystals.py sc:8:1.6 fcc:8:1.6 bcc:8:1.6 --steps 250 --walkers 64 --set level_bumps=0
    python tests/benchmarks/crystals.py bcc:8:1.6 --set 'spin="triplet"'

A crystal is phase:N:r_s, at Gamma, in the most compact supercell, or phase:N:r_s:AxBxC, multiples of the conventional
cell; all have one N. The steps are those of a training, run-aways included: what ran away goes back to good parameters.
Prints energies of the training every 25 steps, then Ha per atom, variance/N and <S^2> of separate sampling. For
comparing forms of the wave function in one run each, without data sets and run folders; --set changes the model's sizes
and choices as in a config.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import fnqs
from fnqs.cli.notation import with_error
from fnqs.cli.settings import apply_overrides, from_table
from fnqs.hamiltonian import local_energies
from fnqs.sampling.exchange import metropolis_with_exchange
from fnqs.sampling.metropolis import adapt_widths, first_walkers
from fnqs.spin import sampled_spin_squared
from fnqs.system import stack_systems
from fnqs_data.generate.crystals import lattice
from fnqs_train.chunks import Chunks
from fnqs_train.config import OptimizerConfig, SamplingConfig
from fnqs_train.equilibration import TARGET_ACCEPTANCE
from fnqs_train.stability.runaway import Guard
from fnqs_train.step import Learned, make_optimizer, make_step

EVERY = 25
"""Steps between two lines."""

MAX_NORM, CHUNKS = 5.0, Chunks(energy=32, gradient=32)
"""Longest step, times the learning rate; walkers computed together."""

MEASURED, AGAIN = 10**6, 2 * 10**6
"""Numbers of the first random keys of the measurements, and of equilibrations after a run-away."""


def crystal(text: str) -> fnqs.Configuration:
    """Configuration of phase:N:r_s or phase:N:r_s:AxBxC."""
    phase, number, radius, *repeats = text.split(":")
    first, second, third = map(int, repeats[0].split("x")) if repeats else (0, 0, 0)
    cell, sites = lattice(phase, int(number), (first, second, third) if repeats else None)[0]
    length = float(radius) * (4 * np.pi / 3) ** (1 / 3)
    return fnqs.make_configuration(np.asarray(cell) * length, np.asarray(sites) * length)


def main() -> None:
    """Train and sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", nargs="+", metavar="PHASE:N:R_S[:AxBxC]")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--walkers", type=int, default=96, help="of each crystal in training (default 96)")
    parser.add_argument("--sampled", type=int, default=512, help="walkers of each crystal afterwards (default 512)")
    parser.add_argument("--measurements", type=int, default=20, help="local energies of each of them (default 20)")
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--decay", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the model, as in a config")
    options = parser.parse_args()
    fnqs.configure()
    table: dict = {}
    apply_overrides(table, options.set)
    model = from_table(fnqs.ModelConfig, table, "--set")
    configurations = [crystal(text) for text in options.crystals]
    number = len(configurations[0].protons)
    systems = jax.device_put(stack_systems([fnqs.make_system(one, model) for one in configurations]))
    wavefunction = fnqs.WaveFunction(model)
    params = wavefunction.init(jax.random.key(options.seed), jax.tree.map(lambda leaf: leaf[0], systems))
    print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters, {dataclasses.asdict(model)}", flush=True)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=options.learning_rate, decay_steps=options.decay, max_norm=MAX_NORM)
    )
    sampling = SamplingConfig(sweeps=options.sweeps)
    step = make_step(wavefunction, optimizer, sampling, OptimizerConfig.clip_width, CHUNKS)

    def move(params, walkers, widths, key):
        contexts = jax.vmap(partial(wavefunction.encode, params))(systems)
        walkers, accepted = metropolis_with_exchange(
            wavefunction, params, contexts, walkers, widths, key, options.sweeps
        )
        return contexts, walkers, adapt_widths(widths, accepted, TARGET_ACCEPTANCE)

    @jax.jit
    def measure(params, walkers, widths, key):
        contexts, walkers, _ = move(params, walkers, widths, key)

        def spins(context, own, key):
            draw = partial(sampled_spin_squared, wavefunction, params, context)
            return jax.vmap(draw)(own, jax.random.split(key, own.shape[0]))

        keys = jax.random.split(jax.random.fold_in(key, 1), len(configurations))
        energies = local_energies(wavefunction, params, contexts, systems, walkers, CHUNKS.energy)
        return walkers, energies, jax.vmap(spins)(contexts, walkers, keys)

    protons = jnp.asarray(np.stack([one.protons for one in configurations]), jnp.float32)
    key = jax.random.key(options.seed + 1)

    def equilibrated(params, count, walkers_key, widths):
        keys = jax.random.split(walkers_key, len(configurations))
        walkers = jnp.stack([first_walkers(own, one, count) for own, one in zip(protons, keys, strict=True)])
        for turn in range(1000 // options.sweeps):
            _, walkers, widths = jax.jit(move)(params, walkers, widths, jax.random.fold_in(walkers_key, turn))
        return walkers, widths

    walkers, widths = equilibrated(params, options.walkers, key, jnp.full(len(configurations), 0.3, jnp.float32))
    learned, rows, began = Learned(params, optimizer.init(params)), [], time.monotonic()
    guard, everywhere = Guard(len(configurations), jax.tree.map(np.asarray, learned)), np.arange(len(configurations))
    for turn in range(options.steps):
        learned, walkers, widths, report = step(learned, systems, walkers, widths, jax.random.fold_in(key, turn))
        report = jax.tree.map(np.asarray, report)
        rows.append((report.energy, report.variance))
        if guard.watch(("all",), everywhere, report) is not None:
            print(f"step {turn + 1}: run-away; back to the parameters of step {guard.kept_step}", flush=True)
            learned = guard.go_back(turn + 1)
            again = jax.random.fold_in(key, AGAIN + turn)
            walkers, widths = equilibrated(learned.params, options.walkers, again, widths)
        elif report.taken:
            guard.keep(turn + 1, learned)
            learned = learned._replace(length=np.float32(guard.length))
        if (turn + 1) % EVERY == 0:
            energies, variances = (np.stack(part) for part in zip(*rows[-EVERY:], strict=True))
            text = "  ".join(
                f"{with_error(mean, error)} var/N {variance:.4f}"
                for mean, error, variance in zip(
                    energies.mean(axis=0), energies.std(axis=0) / EVERY**0.5, variances.mean(axis=0), strict=True
                )
            )
            print(f"step {turn + 1}, {(time.monotonic() - began) / (turn + 1):.2f} s a step: {text}", flush=True)
    params = learned.params
    walkers, widths = equilibrated(params, options.sampled, jax.random.fold_in(key, options.steps), widths)
    measured = []
    for turn in range(options.measurements):
        walkers, energies, spins = measure(params, walkers, widths, jax.random.fold_in(key, MEASURED + turn))
        measured.append((np.asarray(energies) / number, np.asarray(spins)))
    energies, spins = (np.stack(part) for part in zip(*measured, strict=True))
    print(f"\n{'crystal':24} {'E/N (Ha)':>14} {'var/N (Ha²)':>12} {'<S²>':>10}")
    for place, name in enumerate(options.crystals):
        # Walkers are independent: their own means give the error, whatever the correlation in time.
        of_walkers, of_spins = energies[:, place].mean(axis=0), spins[:, place].mean(axis=0)
        spin = with_error(of_spins.mean(), of_spins.std() / options.sampled**0.5)
        energy = with_error(of_walkers.mean(), of_walkers.std() / options.sampled**0.5)
        print(f"{name:24} {energy:>14} {energies[:, place].var() * number:12.4f} {spin:>10}")


if __name__ == "__main__":
    main()
