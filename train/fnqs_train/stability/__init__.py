"""Steps that cannot run away: levels of energies and variances, and what is done when one is left."""
