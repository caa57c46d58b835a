"""Energies of a trained model: sampling, statistics, twists, tables and a journal."""
