"""Compiled programs of a training: compiled ahead, in parts that fit memory and caches."""
