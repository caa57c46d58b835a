"""Where fnqs-train and fnqs-finetune start: nothing large is imported before the door is guarded."""

from __future__ import annotations

from fnqs.cli.door import enter


def train() -> int:
    """Entry point of fnqs-train."""

    def load():
        from fnqs_train.commands import train_main

        return train_main

    return enter("fnqs-train", load)


def finetune() -> int:
    """Entry point of fnqs-finetune."""

    def load():
        from fnqs_train.commands import finetune_main

        return finetune_main

    return enter("fnqs-finetune", load)
