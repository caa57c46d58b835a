"""Markov chains that move walkers so that they follow the square of the wave function."""
