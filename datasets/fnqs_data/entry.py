"""Where fnqs-data starts: nothing large is imported before the door is guarded."""

from __future__ import annotations

from fnqs.cli.start import start


def data() -> int:
    """Entry point of fnqs-data."""

    def load():
        from fnqs_data.commands import main

        return main

    return start("fnqs-data", load)
