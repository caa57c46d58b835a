"""Fixed-node and fixed-phase diffusion Monte Carlo with a trained wave function as guide."""
