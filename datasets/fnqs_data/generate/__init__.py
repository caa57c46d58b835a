"""Generators of proton configurations and the recipe that drives them."""
