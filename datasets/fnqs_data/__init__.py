"""Proton configurations: read, generate, store, split, stream."""
