"""Checkpoints: written whole, verified when read, published without walkers."""
