import numpy as np
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3D

from fnqs.configuration import make_configuration
from fnqs_data.inspect.cell_picture import draw_cell
from fnqs_data.inspect.distances import bond_peak, pair_distribution
from fnqs_data.inspect.plots import draw_records, plot_records
from fnqs_data.store.record import Record


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


def test_the_peak_of_a_bond_is_told_from_the_first_shell_of_a_crystal():
    edges = np.arange(0.0, 4.01, 0.05)
    middles = (edges[1:] + edges[:-1]) / 2
    bond = 5 * np.exp(-(((middles - 1.42) / 0.08) ** 2))
    crowd = 1 / (1 + np.exp(-8 * (middles - 2.6)))
    assert bond_peak(bond + crowd, edges) == pytest.approx(1.42, abs=0.02)  # half a bin
    assert bond_peak(crowd, edges) is None
    assert bond_peak(0.1 * bond + crowd, edges) is None  # lower than an even distribution
    shell = 3 * np.exp(-(((middles - 1.76) / 0.1) ** 2))  # bcc at r_s = 1
    assert bond_peak(shell + crowd, edges) is None
    assert bond_peak(np.full(len(middles), 2.0), edges) is None
    assert bond_peak(np.ones(3), np.arange(4.0, 8.0)) is None


def test_plot_says_which_phases_have_bonds(tmp_path, make_record):
    def molecules(i, edge):
        places = np.array([[0, 0, 0], [0, 0, 1.4], [0.5 * edge, 0.5 * edge, 0], [0.5 * edge, 0.5 * edge + 1.4, 0]])
        return Record(configuration=make_configuration(edge * np.eye(3), places), identifier=f"m-{i}", phase="pair")

    records = [molecules(i, 5.0 + 0.1 * i) for i in range(5)] + [make_record(i, 8, "sc") for i in range(5)]
    peaks = plot_records(records, tmp_path / "set.png", "records")
    assert peaks["pair"] == pytest.approx(1.4, abs=0.03)  # half a bin
    assert peaks["sc"] is None


def test_a_drawn_cell_has_its_edges_its_bonds_and_the_image_across_the_face():
    axes = Figure().add_subplot(projection="3d")
    # One bond inside, one through the face at x = 0; the third distance is too long to be one.
    draw_cell(axes, make_configuration(6 * np.eye(3), [[3, 3, 3], [3, 3, 4.4], [0.5, 1, 1], [-0.9, 1, 1]]), "red")
    lines = [line for line in axes.lines if isinstance(line, Line3D)]
    ends = np.array([np.array(line.get_data_3d()).T for line in lines[12:]])
    np.testing.assert_allclose(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), 1.4, atol=1e-12)
    assert len(ends) == 3  # the bond through the face is drawn at both faces
    assert len(axes.lines) == 12 + 3
    # matplotlib has no public way to ask for these.
    offsets = [points._offsets3d for points in axes.collections]  # pyright: ignore[reportAttributeAccessIssue]
    inside, images = (np.array(places).T for places in offsets)
    assert inside.shape == (4, 3)
    assert inside.min() >= 0
    np.testing.assert_allclose(np.sort(images[:, 0]), [-0.9, 6.5], atol=1e-12)


def test_the_picture_shows_r_s_and_energies_of_every_record(records):
    figure, _ = draw_records(records, "records")
    panels = {axes.get_title(): axes for axes in figure.axes}
    rows = [label.get_text() for label in panels["r_s and phase"].get_yticklabels()]
    assert sorted(rows) == ["bcc", "pa3"]
    for phase in rows:
        members = [record for record in records if record.phase == phase]
        radii = panels["r_s and phase"].lines[rows.index(phase)].get_xdata()
        np.testing.assert_array_equal(radii, [record.wigner_seitz_radius for record in members])
        labelled = [(r.wigner_seitz_radius, r.energy_per_atom) for r in members if r.energy is not None]
        (line,) = [line for line in panels["labelled energies"].lines if line.get_label() == phase]
        np.testing.assert_array_equal(np.transpose(np.array(line.get_data())), labelled)


def test_plot_is_written_in_one_go(tmp_path, records):
    plot_records(records, tmp_path / "set.png", "records")
    assert [path.name for path in tmp_path.iterdir()] == ["set.png"]
    with pytest.raises(OSError, match="missing"):
        plot_records(records[:2], tmp_path / "missing" / "set.png", "records")
