"""The natural gradient: derivatives of log psi, their Gram matrix and its solution."""
