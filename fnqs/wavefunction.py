"""The wave function: encode(params, system) once per configuration, then log_psi(params, context, electrons).

psi = exp(i k . sum_i z_i) exp(J) sum_d det[phi_d(i up, j down)]: a cusp factor and a many-body factor J, pair
determinants of orbitals at backflow positions z, and the phase of the twist. One set of weights serves every N.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
from jaxtyping import Array, Float, Inexact

from fnqs.context import Context
from fnqs.encoder import Encoder
from fnqs.laplacian.jet import Jet
from fnqs.log_psi import LogPsi
from fnqs.model_config import ModelConfig
from fnqs.precision import require_float64
from fnqs.system import System

__all__ = ["Context", "WaveFunction"]


@dataclass(frozen=True)
class WaveFunction:
    """The two halves of the model and their parameters {"encoder": ..., "amplitude": ...}."""

    config: ModelConfig

    def init(self, key: jax.Array, system: System) -> dict:
        """Draw parameters; their shapes do not depend on the system given as an example."""
        return _init(self.config, key, system)

    def encode(self, params: dict, system: System) -> Context:
        """Context of one system (vmap for a stack).

        Raises:
            InputError: float64 is off, which would cost digits without a word.
        """
        require_float64()
        return cast(Context, Encoder(self.config).apply({"params": params["encoder"]}, system))

    def log_psi(
        self, params: dict, context: Context, electrons: Float[Array, "n 3"]
    ) -> tuple[Inexact[Array, ""], Float[Array, ""]]:
        """Phase and log|psi| of one walker (N, 3), bohr, spin up first (vmap for several)."""
        result = LogPsi(self.config).apply({"params": params["amplitude"]}, context, electrons)
        return cast(tuple[jax.Array, jax.Array], result)

    def log_psi_jet(
        self, params: dict, context: Context, electrons: Float[Array, "n 3"]
    ) -> tuple[Inexact[Array, ""], Jet]:
        """Phase and log|psi| of one walker (N, 3) with the gradient and Laplacian of log psi."""
        result = LogPsi(self.config).apply({"params": params["amplitude"]}, context, electrons, True)
        return cast(tuple[jax.Array, Jet], result)


@partial(jax.jit, static_argnums=0)  # so that it is traced once in a process, however often parameters are drawn
def _init(config: ModelConfig, key: jax.Array, system: System) -> dict:
    first, second = jax.random.split(key)
    context, encoder = Encoder(config).init_with_output(first, system)
    electrons = context.protons + 0.1
    amplitude = LogPsi(config).init(second, context, electrons)
    return {"encoder": encoder["params"], "amplitude": amplitude["params"]}
