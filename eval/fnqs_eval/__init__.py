"""Energies of a trained model, comparisons and pictures."""
