"""Zero-shot energies of the configurations in a file.

python eval/examples/energy_of_a_file.py my.extxyz [model] [standard error of E/N in Ha]
"""

import sys

from fnqs_eval import load_model

file, model, error = (*sys.argv[1:], *("foundation", "0.001")[len(sys.argv) - 2 :])
for result in load_model(model).energies(file, error=float(error)):
    print(
        f"{result.identifier}: N = {result.number}, r_s = {result.density_parameter:.3f} bohr, "
        f"E/N = {result.energy_per_atom:.4f} ± {result.error_per_atom:.4f} Ha ({result.reliability})"
    )
