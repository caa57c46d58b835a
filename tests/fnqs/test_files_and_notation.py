import pytest

from fnqs.cli.files import atomic_write, write_text_atomic
from fnqs.cli.notation import with_error


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_text_atomic(path, "old")

    def fail():
        with atomic_write(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-0.489312, 4.1e-5, "-0.48931(4)"),
        (-0.489312, 1.24e-4, "-0.48931(12)"),
        (-0.5, 0.0996, "-0.50(10)"),
        (-0.5, 0.00096, "-0.500(1)"),
        (1234.5, 12.3, "1234(12)"),
        (1234.5, 45.0, "1230(40)"),
        (-0.5, None, "-0.500000"),
        (-0.5, 0.0, "-0.500000"),
        (-0.5, float("nan"), "-0.500000"),
        (float("nan"), 0.1, "nan"),
    ],
)
def test_error_in_the_last_digits(value, error, text):
    assert with_error(value, error) == text
