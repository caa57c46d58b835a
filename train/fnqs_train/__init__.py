"""The global optimisation: walkers, steps, checkpoints, logs; fine-tuning is a short training."""
