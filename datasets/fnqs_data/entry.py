"""Where fnqs-data starts: nothing large is imported before the door is guarded."""

from __future__ import annotations

from fnqs.cli.door import enter


def data() -> int:
    """Entry point of fnqs-data."""

    def load():
        from fnqs_data.commands import main

        return main

    return enter("fnqs-data", load)
