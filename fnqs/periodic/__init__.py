"""The periodic cell: its geometry, smooth distances in it, and fast sines and cosines."""
