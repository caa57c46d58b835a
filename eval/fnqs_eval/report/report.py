"""A report on runs: one page, its pictures as PNG, and a model card in each run."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from fnqs.cli.files import write_text_atomic
from fnqs.errors import InputError
from fnqs_eval.report.model_card import CARD_NAME, model_card
from fnqs_eval.report.report_data import RunReport, read_run
from fnqs_eval.report.report_page import page
from fnqs_eval.report.report_pictures import pictures_of, save_png

PAGE_NAME = "report.html"

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system answers who writes where it is not allowed."""


def write_report(runs: Sequence[Path], output: Path) -> list[Path]:
    """Write OUTPUT/report.html and OUTPUT/*.png, and model-card.md into every run folder.

    The card of a run whose folder cannot be written, such as one of a colleague's, goes to OUTPUT/<run>-model-card.md.

    Args:
        runs: run folders.
        output: a folder.

    Returns:
        the files written.

    Raises:
        InputError: a path that is no run folder, or two runs of one name.
        OSError: a file cannot be written.
    """
    names = [run.resolve().name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"{', '.join(repeated)}: two runs of one name; give each run once, or copy one to another name"
        )
    reports = [read_run(run.resolve()) for run in runs]
    pictures = pictures_of(reports)
    written = [output / PAGE_NAME]
    write_text_atomic(written[0], page(reports, pictures))
    for picture in pictures:
        written.append(output / f"{picture.name}.png")
        save_png(picture, written[-1])
    for report in reports:
        written.append(_write_card(report, output))
    return written


def _write_card(report: RunReport, output: Path) -> Path:
    """Write a model card into its run's folder, or beside the report if that is read-only; returns the file."""
    card, place = model_card(report), report.folder / CARD_NAME
    try:
        write_text_atomic(place, card)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        place = output / f"{report.folder.name}-{CARD_NAME}"
        write_text_atomic(place, card)
    return place
