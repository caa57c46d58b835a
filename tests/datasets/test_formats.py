"""What each format holds is read, refused with its reason, or named as not read."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.geometry import cell_to_cellpar
from ase.io import write
from ase.io.formats import ioformats

import fnqs_data
from fnqs.errors import InputError
from fnqs_data.readers import iterate_records, read_records
from fnqs_data.readers.options import ReadOptions
from fnqs_data.readers.recognition.known_formats import READ, REFUSED

EDGE = 4.0  # bohr, the cube of eight protons that `make_atoms` makes
R_S = EDGE / (32 * np.pi / 3) ** (1 / 3)


@pytest.fixture
def bare(make_atoms):
    """Eight protons without labels."""
    atoms = make_atoms(8)
    atoms.calc = None
    return atoms


def refusal(path: Path, options: ReadOptions | None = None) -> str:
    with pytest.raises(InputError) as error:
        read_records(path, options=options)
    message = str(error.value)
    assert path.name in message
    assert "\n" not in message
    return message


def written(path: Path, atoms, form: str, **options) -> Path:
    if form == "aims":  # ASE gives its writer away, too
        lines = [f"lattice_vector {' '.join(map(repr, row))}" for row in np.array(atoms.cell).tolist()]
        lines += [f"atom {' '.join(map(repr, place))} H" for place in atoms.positions.tolist()]
        path.write_text("\n".join(lines) + "\n")
        return path
    if form == "espresso-in":
        options["pseudopotentials"] = {"H": "h.upf"}
    write(path, atoms, format=form, **options)
    return path


# ---------------------------------------------------------------- the content decides


@pytest.mark.parametrize("form", ["vasp", "xsf", "cube", "gen", "cif", "espresso-in", "aims", "lammps-data", "res"])
@pytest.mark.parametrize("name", ["x.xyz", "noending", "x.traj", "x.gro"])
def test_the_content_decides_the_format(tmp_path, bare, form, name, capsys):
    path = written(tmp_path / name, bare, form)
    (record,) = read_records(path)
    assert record.n_atoms == 8
    # The coarsest of them print lengths with six decimals.
    assert record.wigner_seitz_radius == pytest.approx(R_S, rel=1e-5)
    differences = record.configuration.protons[:, None] - bare.positions / units.Bohr
    assert np.abs(differences - 4.0 * np.round(differences / 4.0)).max(axis=2).min(axis=1).max() < 1e-4


@pytest.mark.parametrize("name", ["x.xyze", "POSCAR", "x.traj", "x.json", "x"])
def test_extended_xyz_under_any_name(tmp_path, make_atoms, name):
    path = tmp_path / name
    write(path, make_atoms(8), format="extxyz")
    assert read_records(path)[0].energy == pytest.approx(-50.0 / units.Hartree, abs=1e-12)


def test_compression_and_byte_order_marks_are_seen_in_the_content(tmp_path, make_atoms):
    text = io.StringIO()
    write(text, make_atoms(8), format="extxyz")
    data = text.getvalue().encode()
    contents = {
        "packed.xyz": gzip.compress(data),
        "plain.xyz.gz": data,
        "mark.xyz": b"\xef\xbb\xbf" + data,
        "windows.xyz": data.replace(b"\n", b"\r\n"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert read_records(tmp_path / name)[0].n_atoms == 8
    (tmp_path / "wide.xyz").write_text(text.getvalue(), encoding="utf-16")
    assert "UTF-16" in refusal(tmp_path / "wide.xyz")


def test_the_user_decides_against_the_content(tmp_path, make_atoms):
    write(tmp_path / "x.xyz", make_atoms(8))
    assert "no species" in refusal(tmp_path / "x.xyz", ReadOptions(format="vasp"))
    assert "0.01 Å" in refusal(tmp_path / "x.xyz", ReadOptions(format="gromacs"))
    assert "extxyz" in refusal(tmp_path / "x.xyz", ReadOptions(format="nonsense"))


@pytest.mark.parametrize("content", [b"hello\nworld\n", bytes(range(200)), b"[1, 2]\n"])
def test_what_is_no_known_format_is_not_called_damaged(tmp_path, content):
    (tmp_path / "some.thing").write_bytes(content)
    message = refusal(tmp_path / "some.thing")
    assert "not recognised" in message
    assert "damaged" not in message


def test_every_format_of_ase_is_in_the_documentation():
    text = (Path(fnqs_data.__file__).parents[1] / "README.md").read_text()
    for name in [*READ, *REFUSED]:
        assert f"`{name}`" in text, name
    assert {name for name, form in ioformats.items() if form.can_read} <= {*READ, *REFUSED}


# ---------------------------------------------------------------- .res


def structure(
    number: int = 1, title: str = "300.00 {volume} -100.0 0.00 0.00 8 (P1) n - 1", lattice: str = "-1"
) -> str:
    edge = EDGE * units.Bohr
    places = "".join(f"H 1 {x / 2} {y / 2} {z / 2} 1.0\n" for x in (0, 1) for y in (0, 1) for z in (0, 1))
    return (
        f"TITL h-{number} {title.format(volume=f'{edge**3:.6f}')}\n"
        f"CELL 1.54180 {edge:.8f} {edge:.8f} {edge:.8f} 90 90 90\n"
        f"LATT {lattice}\nSFAC H\n{places}END\n"
    )


def test_the_enthalpy_of_a_res_file_is_no_energy(tmp_path):
    (tmp_path / "x.res").write_text(structure())
    told = []
    (record,) = read_records(tmp_path / "x.res", told=told)
    assert record.energy is None
    assert record.pressure == 300.0
    assert len(told) == 1
    assert "not read: enthalpy" in told[0]


def test_two_structures_of_a_res_file_are_two_frames(tmp_path):
    (tmp_path / "x.res").write_text(structure(1) + "\n" + structure(2))
    assert [(r.frame, r.n_atoms) for r in read_records(tmp_path / "x.res")] == [(0, 8), (1, 8)]
    assert [r.frame for r in read_records(tmp_path / "x.res", slice(1, None))] == [1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (structure(lattice="1"), "symmetry"),
        (structure().replace("LATT -1\n", ""), "symmetry"),
        (structure().replace("SFAC", "SYMM -x,-y,-z\nSFAC"), "symmetry"),
        (structure().replace("1.0\nEND", "0.5\nEND"), "occupied partly"),
        (structure().replace("END\n", ""), "complete"),
        (structure().replace("SFAC H", "SFAC He"), "He"),
        (structure(title="300.00 {volume} -100.0 2.00 2.00 8 (P1) n - 1"), "magnetic moment"),
        (structure(title="300.00 {volume} -100.0 0.00 0.00 9 (P1) n - 1"), "9 atoms"),
        (structure(title="300.00 99.0 -100.0 0.00 0.00 8 (P1) n - 1"), "volume"),
    ],
)
def test_res_files_that_say_more_than_is_read(tmp_path, text, says):
    (tmp_path / "x.res").write_text(text)
    assert says in refusal(tmp_path / "x.res")


# ---------------------------------------------------------------- VASP


def test_a_cut_xdatcar_keeps_its_whole_frames(tmp_path, bare):
    path = tmp_path / "XDATCAR"
    write(path, [bare, bare, bare], format="vasp-xdatcar")
    assert len(read_records(path)) == 3
    path.write_text(path.read_text()[:-150])
    items = list(iterate_records(path))
    assert [isinstance(item, InputError) for item in items] == [False, False, True]
    assert "frame 2" in str(items[2])
    assert "complete" in str(items[2])
    assert [r.frame for r in read_records(path, slice(1, 2))] == [1]


def test_an_xdatcar_whose_cell_changes(tmp_path, bare):
    wider = bare.copy()
    wider.set_cell(1.1 * np.array(bare.cell), scale_atoms=True)
    texts = []
    for i, atoms in enumerate((bare, wider)):
        file = io.StringIO()
        write(file, atoms, format="vasp-xdatcar")
        texts.append(file.getvalue().replace("configuration=     1", f"configuration=     {i + 1}"))
    (tmp_path / "XDATCAR").write_text("".join(texts))
    one, two = read_records(tmp_path / "XDATCAR")
    assert two.wigner_seitz_radius == pytest.approx(1.1 * one.wigner_seitz_radius, rel=1e-6)  # eight digits are printed
    (tmp_path / "XDATCAR").write_text("".join(texts).replace("configuration=     2", "configuration=     1"))
    assert len(read_records(tmp_path / "XDATCAR")) == 2  # two runs, one after the other


def test_positions_too_many_in_a_poscar_are_not_velocities(tmp_path, bare):
    path = written(tmp_path / "POSCAR", bare, "vasp")
    text = path.read_text()
    path.write_text(text + text.splitlines(keepends=True)[-1])
    assert "more follow" in refusal(path)
    path.write_text(text + "\n" + "  0.0 0.0 0.0\n" * 8)
    assert read_records(path)[0].n_atoms == 8  # velocities come after an empty line


def test_a_poscar_without_species_looks_into_no_other_file(tmp_path, bare):
    path = written(tmp_path / "POSCAR", bare, "vasp")
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / "POTCAR").write_text("  TITEL  = PAW_PBE H 15Jun2001\n")
    path.write_text("".join(["some comment\n", *lines[1:5], *lines[6:]]))
    assert "no species" in refusal(path)


# ---------------------------------------------------------------- CIF


def hexagonal(place: str, occupancy: str = "1.0", element: str = "H") -> str:
    return (
        "data_h\n_cell_length_a 2.3\n_cell_length_b 2.3\n_cell_length_c 3.7\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 120\n_space_group_IT_number 194\n"
        "_space_group_name_H-M_alt 'P 63/m m c'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        f"{element}1 {element} {place} 0.25 {occupancy}\n"
    )


@pytest.mark.parametrize(
    "place", ["0.333 0.667", "0.3333 0.6667", "0.33333(2) 0.66667(2)", ".333 .667", "-0.667 0.667"]
)
def test_coarse_special_positions_of_a_cif_are_not_doubled(tmp_path, place):
    (tmp_path / "x.cif").write_text(hexagonal(place))
    (record,) = read_records(tmp_path / "x.cif")
    assert record.n_atoms == 2


def test_what_a_cif_leaves_in_doubt(tmp_path):
    path = tmp_path / "x.cif"
    path.write_text(hexagonal("0.335 0.667"))
    assert "printed too coarsely" in refusal(path)
    path.write_text(hexagonal("0.333 0.667", occupancy="0.5"))
    assert "occupied partly" in refusal(path)
    path.write_text(
        hexagonal("0.333 0.667").replace("loop_", "_chemical_formula_sum H2\n_cell_formula_units_Z 2\nloop_")
    )
    assert "formula" in refusal(path)
    path.write_text(hexagonal("0.333 0.667", element="D"))
    assert read_records(path)[0].isotope == "D"


# ---------------------------------------------------------------- LAMMPS


def test_lammps_data(tmp_path, bare):
    path = written(tmp_path / "h.data", bare, "lammps-data")
    told = []
    assert read_records(path, told=told)[0].n_atoms == 8
    assert "type 1 are taken for hydrogen" in told[0]
    written(path, bare, "lammps-data", masses=True)
    told = []
    assert read_records(path, told=told)[0].isotope == ""
    assert told == []
    text = path.read_text()
    path.write_text(text.replace("(written by ASE)", "LAMMPS data file via write_data, units = lj"))
    assert "lj units" in refusal(path)
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    assert "complete" in refusal(path)


@pytest.mark.parametrize(("mass", "isotope"), [(1.008, ""), (2.014, "D"), (3.016, "T")])
def test_isotopes_of_lammps_by_mass(tmp_path, bare, mass, isotope):
    bare.set_masses([mass] * 8)
    (record,) = read_records(written(tmp_path / "h.data", bare, "lammps-data", masses=True))
    assert (record.n_atoms, record.isotope) == (8, isotope)


def dump(columns: str = "id type x y z fx fy fz", kind: str = "1") -> str:
    edge = EDGE * units.Bohr
    rows = [(x * edge / 2, y * edge / 2, z * edge / 2) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    atoms = "".join(f"{i + 1} {kind} {x:.8f} {y:.8f} {z:.8f} 0.1 0.2 0.3\n" for i, (x, y, z) in enumerate(rows))
    box = f"0.0 {edge:.10f}\n" * 3
    head = f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n8\nITEM: BOX BOUNDS pp pp pp\n{box}"
    return f"{head}ITEM: ATOMS {columns}\n{atoms}"


def test_lammps_dumps_have_no_energy_and_forces_only_in_known_units(tmp_path):
    path = tmp_path / "h.dump"
    path.write_text(dump() * 2)
    told = []
    records = read_records(path, told=told)
    assert [(r.n_atoms, r.energy, r.forces) for r in records] == [(8, None, None)] * 2
    assert "does not state its units" in told[0]
    path.write_text("ITEM: UNITS\nmetal\n" + dump())
    (record,) = read_records(path)
    assert record.energy is None
    np.testing.assert_allclose(record.forces[0], np.array([0.1, 0.2, 0.3]) * units.Bohr / units.Hartree)
    path.write_text("ITEM: UNITS\nreal\n" + dump())
    assert "real units" in refusal(path)
    path.write_text(dump() + dump()[:-30])
    assert [isinstance(item, InputError) for item in iterate_records(path)] == [False, True]
    path.write_text(dump("id element x y z fx fy fz", "D"))
    assert read_records(path)[0].isotope == "D"
    path.write_text(dump("id type x y z fx fy fz", "2"))
    assert "He" in refusal(path)


# ---------------------------------------------------------------- i-PI and others


@pytest.mark.parametrize("unit", ["angstrom", "atomic_unit"])
@pytest.mark.parametrize("kind", ["abcABC", "H", "GENH"])
def test_xyz_of_ipi(tmp_path, bare, kind, unit):
    tilt = np.array([[0, 0, 0], [0.3, 0, 0], [0.1, -0.2, 0]])
    bare.set_cell(np.array(bare.cell) + tilt, scale_atoms=True)
    scale = 1.0 if unit == "angstrom" else 1 / units.Bohr
    cell = np.array(bare.cell) * scale
    numbers = cell_to_cellpar(cell) if kind == "abcABC" else cell.T.ravel()
    lines = [
        "8",
        f"# CELL({kind}): {' '.join(f'{x:.9f}' for x in numbers)} Step: 0 Bead: 0 positions{{angstrom}} cell{{{unit}}}",
    ]
    lines += [f"H {x:.9f} {y:.9f} {z:.9f}" for x, y, z in bare.positions]
    (tmp_path / "x.xyz").write_text("\n".join(lines) + "\n")
    (record,) = read_records(tmp_path / "x.xyz")
    np.testing.assert_allclose(record.configuration.cell, np.array(bare.cell) / units.Bohr, atol=1e-7)
    np.testing.assert_allclose(record.configuration.protons, bare.positions / units.Bohr, atol=1e-7)
    (tmp_path / "x.xyz").write_text("\n".join(lines).replace("positions{", "forces{") + "\n")
    assert "not positions" in refusal(tmp_path / "x.xyz")


def test_siesta(tmp_path, bare):
    lines = [" ".join(f"{x / units.Bohr:.9f}" for x in row) + " 0.0 0.0 0.0" for row in np.array(bare.cell)] + ["8"]
    lines += [f"1 1 {' '.join(f'{v / units.Bohr:.9f}' for v in x)} 0.0 0.0 0.0" for x in bare.positions]
    for name in ("x.XV", "noending"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        assert read_records(tmp_path / name)[0].wigner_seitz_radius == pytest.approx(R_S, rel=1e-7)


def test_what_inputs_say_beside_their_atoms(tmp_path, bare):
    path = written(tmp_path / "h.pwi", bare, "espresso-in")
    text = path.read_text()
    path.write_text(text.replace("&SYSTEM", "&SYSTEM\n  tot_charge = 1.0,"))
    assert "charge" in refusal(path)
    path.write_text(text.replace("&SYSTEM", "&SYSTEM\n  tot_magnetization = 2,"))
    assert "magnetic" in refusal(path)
    path.write_text(text.replace("H 1.008", "H 2.014"))
    assert read_records(path)[0].isotope == "D"
    path = written(tmp_path / "geometry.in", bare, "aims")
    text = path.read_text()
    path.write_text(text + "initial_charge 1.0\n")
    assert "charge is 1" in refusal(path)
    path.write_text(text + "empty 0.1 0.1 0.1 H\n")
    assert "more than atoms" in refusal(path)
    path = written(tmp_path / "h.cube", bare, "cube")
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace(" 2 ", "-2 ", 1)
    path.write_text("".join(lines))
    assert "negative" in refusal(path)


def test_forces_of_an_xsf_have_no_known_unit(tmp_path, make_atoms):
    told = []
    (record,) = read_records(written(tmp_path / "h.xsf", make_atoms(8), "xsf"), told=told)
    assert record.forces is None
    assert "Ha/Å or eV/Å" in told[0]


def test_deuterium_where_ase_does_not_know_it(tmp_path, bare):
    path = written(tmp_path / "h.xsf", bare, "xsf")
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join(line.replace(" 1 ", " D ", 1) if len(line.split()) == 4 else line for line in lines) + "\n"
    )
    message = refusal(path)
    assert "write H for D" in message
    assert "damaged" not in message
