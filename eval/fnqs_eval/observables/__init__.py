"""Pressure, stress, forces, correlation functions, finite-size corrections, equations of state and labels."""
