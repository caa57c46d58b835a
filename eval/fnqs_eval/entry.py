"""Where fnqs-evaluate starts: nothing large is imported before the door is guarded."""

from __future__ import annotations

from fnqs.cli.door import enter


def evaluate() -> int:
    """Entry point of fnqs-evaluate."""

    def load():
        from fnqs_eval.commands import main

        return main

    return enter("fnqs-evaluate", load)
