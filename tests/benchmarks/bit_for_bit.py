"""Digests of what a checkout computes, for changes that may not change a number.

    python tests/benchmarks/bit_for_bit.py [CHECKOUT] [--parts pairing twisted run ...]

Prints a line for each of: names, shapes, log psi, local energy and its derivatives by the parameters for every kind of
model, all energies of a training of three steps with the model of `configs/quickstart.toml`, its last state, and
the energies of its evaluation; then the energies themselves in full. CHECKOUT is a folder with another version of
fnqs; what is compared are the lines:

    git worktree add ../before COMMIT
    python tests/benchmarks/bit_for_bit.py ../before > before.txt
    python tests/benchmarks/bit_for_bit.py > after.txt
    diff before.txt after.txt

Both need the same machine; nothing compiled is kept between them. Most of the time goes to compilations, which take
half as long with JAX_DISABLE_MOST_OPTIMIZATIONS=true, set for both. 4 minutes on one processor core.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDERS = (".", "datasets", "train", "eval")
"""Of a checkout, in which the packages are."""

MODELS: dict[str, dict[str, Any]] = {
    "pairing": {"determinants": 2},
    "no level bumps": {"level_bumps": 0},
    "triplet": {"spin": "triplet"},
    "slater": {"antisymmetric": "slater"},
    "moments": {"antisymmetric": "moments"},
    "plane waves": {"antisymmetric": "plane_waves"},
    "twisted": {},
}
"""Differences from the default model, by the names that are printed."""

RECIPE = """name = "bit-for-bit"
[[family]]
phase = "sc"
number = [8]
r_s = 1.6
supercell = [2, 2, 2]
count = 2
displacement = 0.05
[[family]]
phase = "bcc"
number = [2]
r_s = 1.4
count = 2
displacement = 0.05
twist = "random"
"""

CONFIG = """name = "bit-for-bit"
steps = 3
data.recipe = "bit-for-bit-set.toml"
log = { wandb = "disabled", every_steps = 1 }
sampling = { walkers_per_configuration = 8, configurations_per_step = 2, sweeps = 2, equilibration_sweeps = 10 }
optimizer = { learning_rate = 0.05, decay_steps = 250, damping = 1e-2, momentum = 0.9, max_norm = 5.0 }
"""

CELL = """2
Lattice="1.45 0 0 0 1.45 0 0 0 1.45" Properties=species:S:1:pos:R:3 pbc="T T T"
H 0.00 0.02 0.00
H 0.72 0.70 0.74
"""

OF_THE_CLOCK = ("seconds", "time", "elapsed", "versions", "checkpoint")
"""What part of the name of a value says that it differs from run to run, or names a place."""


def digest(*values: Any) -> str:
    """Sixteen hex digits of bytes, texts or arrays."""
    import numpy as np

    found = hashlib.blake2b(digest_size=8)
    for value in values:
        if isinstance(value, str):
            found.update(value.encode())
        else:
            array = np.asarray(value)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def print_models(names: list[str]) -> None:
    """Print digests of all that is made of random parameters of these kinds of models."""
    import jax
    import numpy as np

    import fnqs

    edge = 2.6
    corners = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0], [0, 1, 1]]) * edge / 2
    for name in names:
        rng = np.random.default_rng(1)
        places = corners + rng.normal(scale=0.1, size=(4, 3))
        electrons = np.asarray(rng.uniform(size=(3, 4, 3)) * edge, np.float32)
        changes = MODELS[name]
        twist = (0.1, -0.2, 0.3) if name == "twisted" else (0.0, 0.0, 0.0)
        config = fnqs.ModelConfig(**changes)
        system = fnqs.make_system(fnqs.make_configuration(edge * np.eye(3), places, twist), config)
        wavefunction = fnqs.WaveFunction(config)
        params = jax.jit(wavefunction.init)(jax.random.key(0), system)
        named = jax.tree_util.tree_leaves_with_path(params)
        shapes = [f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}" for path, leaf in named]
        # Heads that start at zero would hide what they feed.
        moved = [np.asarray(leaf + 0.03 * rng.normal(size=leaf.shape), leaf.dtype) for _, leaf in named]
        params = jax.tree.unflatten(jax.tree.structure(params), moved)
        context = jax.jit(wavefunction.encode)(params, system)

        def log(params, electrons, wavefunction=wavefunction, system=system):
            _, value = wavefunction.log_psi(params, wavefunction.encode(params, system), electrons)
            return value

        def energy(electrons, wavefunction=wavefunction, params=params, context=context, system=system):
            return fnqs.local_energy(wavefunction, params, context, system, electrons)

        phases, logs = jax.jit(jax.vmap(lambda r, w=wavefunction, p=params, c=context: w.log_psi(p, c, r)))(electrons)
        slopes = jax.tree.leaves(jax.jit(jax.grad(log))(params, electrons[0]))
        energies = jax.jit(jax.vmap(energy))(electrons)
        print(f"{name}: parameters {len(shapes)}, {digest(*shapes)}, drawn {digest(*(leaf for _, leaf in named))}")
        print(f"{name}: log psi {digest(phases, logs)} {[float(value) for value in logs]}")
        print(f"{name}: gradient {digest(*slopes)}")
        values = [complex(value) for value in np.asarray(energies)]
        print(f"{name}: local energy {digest(energies)} {values}", flush=True)


def print_run(folder: Path) -> None:
    """Print the record of a training of three steps, a digest of its state, and the energies of an evaluation."""
    from fnqs_data.commands import main as data
    from fnqs_eval.commands import main as evaluate
    from fnqs_train.checkpointing.checkpoint import resolve_checkpoint, restore_params
    from fnqs_train.commands import train_main

    (folder / "bit-for-bit-set.toml").write_text(RECIPE)
    (folder / "bit-for-bit.toml").write_text(CONFIG)
    (folder / "cell.extxyz").write_text(CELL)
    run = folder / "run"
    with contextlib.redirect_stdout(sys.stderr):
        code = data(["build", str(folder / "bit-for-bit-set.toml")])
        code = code or train_main([str(folder / "bit-for-bit.toml"), "--output", str(run)])
        options = ["--walkers", "16", "--equilibration", "20", "--measurements", "16", "--output", str(run / "e.json")]
        code = code or evaluate(["energies", str(run), "--configurations", str(folder / "cell.extxyz"), *options])
    if code:
        raise SystemExit(code)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        print("training:", json.dumps(lasting(json.loads(line))))
    import jax

    print("parameters after the training:", digest(*jax.tree.leaves(restore_params(resolve_checkpoint(run)))))
    print("evaluation:", json.dumps(lasting(json.loads((run / "e.json").read_text()))))


def lasting(value: Any) -> Any:
    """Leave out of a tree of JSON values what the clock or the place says."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not any(word in key for word in OF_THE_CLOCK)}
        return {key: lasting(item) for key, item in kept.items() if key != "configurations"}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Print what is asked for, from the packages of a checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[2], help="default: this one")
    parser.add_argument("--parts", nargs="+", choices=[*MODELS, "run"], default=[*MODELS, "run"])
    options = parser.parse_args()
    sys.path[:0] = [str((options.checkout / folder).resolve()) for folder in FOLDERS]
    import fnqs

    found = Path(str(fnqs.__file__)).resolve().parents[1]
    if found != options.checkout.resolve():
        raise SystemExit(f"{options.checkout}: fnqs is imported from {found} instead; give the folder of a checkout")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FNQS_CACHE"] = str(Path(folder) / "cache")
        fnqs.configure(compilation_cache=False)
        print_models([name for name in options.parts if name != "run"])
        if "run" in options.parts:
            print_run(Path(folder))


if __name__ == "__main__":
    main()
