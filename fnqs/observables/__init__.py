"""What a wave function says beyond its energy: estimators of one walker, pure functions."""
