"""The room that a pair finds beside pairs that already fill levels (Pauli blocking in a projected pair condensate)."""

from __future__ import annotations

import numpy as np


def room_for_a_pair(amplitudes: np.ndarray, window: np.ndarray, others: int) -> np.ndarray:
    """Overlaps of the states T C^m |0>, C = sum_l p_l a_l^+ b_l^+ and T any pair in G levels of the window.

    A pair in two levels i and j blocks both for the others; pairs in one level each, i and j, overlap where the others
    make up for the difference. With e_m the elementary symmetric polynomials of the squares of the p_l of the levels
    that are left: <ij|ij> = e_m(without i, j), <ii|ii> = e_m(without i), <ii|jj> = p_i p_j e_(m-1)(without i, j).

    Args:
        amplitudes: (B,) p_l of all levels, between 0 and 1.
        window: (G,) indices of the levels of the pair, two at least.
        others: m.

    Returns:
        (G G, G G) symmetric, divided by (m!)^2; first and second electron of T run along both axes.
    """
    number = len(window)
    squares = amplitudes**2
    rest = _polynomial(np.delete(squares, window), others)
    first, second = np.triu_indices(number, 1)
    left = np.repeat(rest[None], len(first), axis=0)
    for level, square in enumerate(squares[window]):
        counted = ((first != level) & (second != level))[:, None]
        left[:, 1:] += np.where(counted, square * left[:, :-1], 0.0)
    every = left[:, others]
    fewer = left[:, others - 1] if others else np.zeros(len(first))
    inside = amplitudes[window]
    room = np.zeros((number, number, number, number))
    room[first, second, first, second] = room[second, first, second, first] = every
    room[first, first, second, second] = inside[first] * inside[second] * fewer
    room[second, second, first, first] = room[first, first, second, second]
    for level in range(number):
        pair = np.flatnonzero((first == level) | (second == level))[0]
        other = second[pair] if first[pair] == level else first[pair]
        room[level, level, level, level] = every[pair] + inside[other] ** 2 * fewer[pair]
    return room.reshape(number**2, number**2)


def _polynomial(squares: np.ndarray, degree: int) -> np.ndarray:
    """Elementary symmetric polynomials (degree + 1,) of the squares."""
    found = np.zeros(degree + 1)
    found[0] = 1.0
    for square in squares:
        found[1:] = found[1:] + square * found[:-1]
    return found
