"""Where fnqs-evaluate starts: nothing large is imported before the door is guarded."""

from __future__ import annotations

from fnqs.cli.start import start


def evaluate() -> int:
    """Entry point of fnqs-evaluate."""

    def load():
        from fnqs_eval.commands import main

        return main

    return start("fnqs-evaluate", load)
