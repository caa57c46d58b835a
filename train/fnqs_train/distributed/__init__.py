"""Several processes and devices: how they meet, share walkers, and end together."""
