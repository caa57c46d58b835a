"""The text of a file that is taken into memory as a whole, without the marks that editors leave."""

from __future__ import annotations

from pathlib import Path

from fnqs_data.readers.recognition.recognise import BYTE_ORDER_MARK


def text_of(path: Path) -> str:
    """Return a file's text; a comment may be in any encoding, so what is not UTF-8 becomes a replacement character."""
    return path.read_bytes().removeprefix(BYTE_ORDER_MARK).decode(errors="replace").replace("\r\n", "\n")


def floats(line: str, count: int) -> list[float]:
    """Return the first numbers of a line; raises ValueError if it has fewer."""
    words = line.split()[:count]
    if len(words) < count:
        raise ValueError(f"{count} numbers are expected, not {line.strip()[:40]!r}")
    return [float(word.replace("D", "E").replace("d", "e")) for word in words]


def reason_of(error: Exception) -> str:
    """Return what a parser's exception says, in one line of bounded length."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return " ".join(str(error).split())[:200] or type(error).__name__


def ends_within_number(last: str | bytes, before: str | bytes) -> bool:
    """Whether a last line may have lost digits: no line end, a number at its end, shorter than the line before."""
    last, before = (line.decode(errors="replace") if isinstance(line, bytes) else line for line in (last, before))
    words = last.split()
    return bool(
        words
        and not last.endswith("\n")
        and words[-1][-1:] in "0123456789."
        and len(last.rstrip()) < len(before.rstrip())
        and len(words) <= len(before.split())
    )


def last_lines(text: str) -> tuple[str, str]:
    """Return the last line of a text and the one before."""
    lines = text[-4096:].splitlines(keepends=True)
    return (lines[-1], lines[-2]) if len(lines) > 1 else ("", "")


CUT = "the last line has no line end and is shorter than the one before; is the file complete?"
"""What is said of a text that `ends_within_number`."""
