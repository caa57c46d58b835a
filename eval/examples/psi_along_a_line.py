"""The wave function along a line: one electron crosses a cell of bcc hydrogen, N = 2, through a proton.

    python eval/examples/psi_along_a_line.py [picture.png]

psi has the electron-proton cusp at the proton, 0.4 of the way, and is the same at both ends of the line: they are one
lattice vector apart.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import fnqs
from fnqs_eval import load_model

model = load_model("foundation")
edge = 2.66  # bohr
bcc = fnqs.make_configuration(edge * np.eye(3), [[0.0, 0.0, 0.0], [edge / 2, edge / 2, edge / 2]])
fractions = np.linspace(0, 1, 201)
electrons = np.tile([[0.3, 0.2, 0.1], [edge / 2, edge / 2, edge / 2]], (len(fractions), 1, 1))
electrons[:, 1, 0] += (fractions - 0.4) * edge
phase, log = model.log_psi(bcc, electrons)
psi = np.real(phase) * np.exp(np.asarray(log) - np.max(log))

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(fractions * edge, psi)
axes.axvline(0.4 * edge, color="grey", linewidth=0.8, linestyle=":")
axes.set(xlabel="position of the second electron (bohr)", ylabel="ψ / largest |ψ|", title=repr(model))
picture = sys.argv[1] if len(sys.argv) > 1 else "psi.png"
figure.savefig(picture, dpi=150)
print(f"written: {picture}; ψ at both ends: {psi[0]:.6f}, {psi[-1]:.6f}")
