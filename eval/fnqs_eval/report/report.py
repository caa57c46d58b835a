"""A report on runs: one page, its pictures as PNG, and a model card in each run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fnqs.cli.files import write_text_whole
from fnqs.errors import InputError
from fnqs_eval.report.model_card import CARD_NAME, model_card
from fnqs_eval.report.report_data import read_run
from fnqs_eval.report.report_page import page
from fnqs_eval.report.report_pictures import pictures_of, save_png

PAGE_NAME = "report.html"


def write_report(runs: Sequence[Path], output: Path) -> list[Path]:
    """Write OUTPUT/report.html and OUTPUT/*.png, and model-card.md into every run folder.

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
    write_text_whole(written[0], page(reports, pictures))
    for picture in pictures:
        written.append(output / f"{picture.name}.png")
        save_png(picture, written[-1])
    for report in reports:
        written.append(report.folder / CARD_NAME)
        write_text_whole(written[-1], model_card(report))
    return written
