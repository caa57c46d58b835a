"""The physics and the wave function: pure functions of (parameters, configuration, electrons)."""
