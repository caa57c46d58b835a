import numpy as np
import pytest

from fnqs.configuration import make_configuration
from fnqs_data.plots import pair_distribution, plot_records


def test_pair_distribution_counts_the_neighbours_of_a_crystal():
    # Simple cubic, edge 2, as 8 atoms: 6 neighbours at 2, 12 at 2.828, 8 at 3.464 bohr.
    places = 2.0 * np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    crystal = make_configuration(4.0 * np.eye(3), places)
    edges = np.array([1.0, 2.4, 3.2, 3.7])
    g, nearest = pair_distribution([crystal, crystal], edges)
    neighbours = g * 4 / 3 * np.pi * np.diff(edges**3) / 8
    np.testing.assert_allclose(neighbours, [6, 12, 8], rtol=1e-12)  # whole numbers up to rounding
    np.testing.assert_allclose(nearest, 2.0, rtol=1e-12)
    assert nearest.shape == (16,)


def test_a_small_cell_sees_its_own_images():
    pair = make_configuration(np.diag([2.0, 2.0, 4.0]), [[0, 0, 0], [0, 0, 2.0]])
    g, _ = pair_distribution([pair], np.array([1.0, 2.4]))
    assert g[0] * 4 / 3 * np.pi * (2.4**3 - 1) / 8 == pytest.approx(6, rel=1e-12)  # again simple cubic


def test_plot_is_written_in_one_go(tmp_path, records):
    plot_records(records, tmp_path / "set.png", "records")
    assert (tmp_path / "set.png").stat().st_size > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["set.png"]
    with pytest.raises(OSError, match="missing"):
        plot_records(records[:2], tmp_path / "missing" / "set.png", "records")
