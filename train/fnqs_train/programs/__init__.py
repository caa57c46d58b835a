"""Compiled programs of a training: compiled ahead, and repeated in smaller parts where memory is short."""
