"""Settings of the whole test suite: those of the commands, with strict shapes and dtypes."""

import jax

from fnqs.precision import configure

configure()
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "allow")
