"""Labels under the names in use, and what is said of those that are not read."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import write

from fnqs.errors import InputError
from fnqs_data.readers import read_records
from fnqs_data.readers.checks.energy_bounds import highest_energy
from fnqs_data.readers.options import ReadOptions
from fnqs_data.store.record import decode_record, encode_record

ENERGY = -0.5 * 8 * units.Hartree
EDGE = 4.0 * units.Bohr


@pytest.fixture
def frame(tmp_path):
    """A function that writes eight protons with a comment and columns, and returns the file."""

    def make(comment: str = "", column: str = "", values: str = "", symbol: str = "H"):
        lattice = " ".join(str(x) for x in (EDGE * np.eye(3)).ravel())
        rows = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        places = "".join(f"{symbol} {' '.join(f'{v * EDGE / 2:.8f}' for v in row)} {values}\n" for row in rows)
        path = tmp_path / "x.xyz"
        path.write_text(f'8\nLattice="{lattice}" Properties=species:S:1:pos:R:3{column} {comment}\n{places}')
        return path

    return make


def refusal(path, options=None) -> str:
    with pytest.raises(InputError, match=r"x\.xyz: frame 0: ") as error:
        read_records(path, options=options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["energy", "Energy", "REF_energy", "dft_energy", "DFT_energy", "total_energy", "TotEnergy"]
)
def test_names_of_energies(frame, name):
    told = []
    (record,) = read_records(frame(f"{name}={ENERGY!r}"), told=told)
    assert record.energy_per_atom == pytest.approx(-0.5, abs=1e-12)
    assert told == []


@pytest.mark.parametrize("name", ["free_energy", "E0", "mace_energy"])
def test_energies_of_other_meanings_are_named_and_may_be_chosen(frame, name):
    told = []
    (record,) = read_records(frame(f"{name}={ENERGY!r}"), told=told)
    assert record.energy is None
    assert told == [told[0]]
    assert f"not read: {name} (1 frame)" in told[0]
    (record,) = read_records(frame(f"{name}={ENERGY!r}"), options=ReadOptions(energy_key=name))
    assert record.energy_per_atom == pytest.approx(-0.5, abs=1e-12)


def test_two_energies_are_never_mixed_up(frame):
    both = frame(f"energy={ENERGY!r} REF_energy={ENERGY - 1!r}")
    assert "differ" in refusal(both)
    (record,) = read_records(both, options=ReadOptions(energy_key="REF_energy"))
    assert record.energy == pytest.approx((ENERGY - 1) / units.Hartree, abs=1e-12)
    assert "'nothing'" in refusal(both, ReadOptions(energy_key="nothing"))
    # The same number with fewer digits is the same label.
    assert read_records(frame(f"energy={ENERGY!r} REF_energy={ENERGY:.5f}"))[0].energy is not None


@pytest.mark.parametrize("name", ["forces", "force", "REF_forces", "Forces", "dft_force"])
def test_names_of_forces(frame, name):
    (record,) = read_records(frame("", f":{name}:R:3", "0.1 0.2 0.3"))
    np.testing.assert_allclose(record.forces, np.tile([0.1, 0.2, 0.3], (8, 1)) * units.Bohr / units.Hartree)


def test_columns_that_are_not_read_are_named(frame):
    told = []
    path = frame('dipole="1 2 3"', ":velo:R:3", "0.1 0.2 0.3")
    (record,) = read_records(path, told=told)
    assert record.forces is None
    assert "not read: velo, dipole (1 frame)" in told[0]
    (record,) = read_records(path, options=ReadOptions(forces_key="velo"))
    assert record.forces is not None
    assert "shape" in refusal(frame("", ":forces:R:2", "0.1 0.2"))


TENSOR = np.array([[1.0, 0.1, 0.2], [0.1, 1.1, 0.3], [0.2, 0.3, 1.2]])


@pytest.mark.parametrize(
    ("name", "numbers", "sign"),
    [
        ("stress", TENSOR.ravel(), 1),
        ("stress", [1.0, 1.1, 1.2, 0.3, 0.2, 0.1], 1),  # xx yy zz yz xz xy
        ("REF_stress", TENSOR.ravel(), 1),
        ("virial", TENSOR.ravel() * EDGE**3, -1),
        ("virials", TENSOR.ravel() * EDGE**3, -1),
        ("REF_virial", TENSOR.ravel() * EDGE**3, -1),
    ],
)
def test_sign_and_order_of_stresses(frame, name, numbers, sign):
    (record,) = read_records(frame(f'{name}="{" ".join(str(x) for x in numbers)}"'))
    np.testing.assert_allclose(record.stress, sign * TENSOR * units.Bohr**3 / units.Hartree, rtol=1e-12)


def test_stresses_that_cannot_be(frame):
    virial = " ".join(str(-x) for x in TENSOR.ravel() * EDGE**3)
    tensor = " ".join(str(x) for x in TENSOR.ravel())
    assert read_records(frame(f'stress="{tensor}" virial="{virial}"'))[0].stress is not None
    assert "differ" in refusal(frame(f'stress="{tensor}" virial="{virial.replace("-", "")}"'))
    assert "GPa" in refusal(frame('stress="150 0 0 0 150 0 0 0 150"'))
    assert "symmetric" in refusal(frame('stress="1 2 0 0 1 0 0 0 1"'))
    assert "shape" in refusal(frame("stress=0.5"))


@pytest.mark.parametrize("name", ["charge", "total_charge", "Charge", "net_charge"])
def test_charged_cells_are_refused_under_every_name(frame, name):
    assert "its charge is 1" in refusal(frame(f"{name}=1"))
    read_records(frame(f"{name}=0"))


@pytest.mark.parametrize("symbol", ["D", "d", "2H", "T", "3H"])
def test_isotopes_by_symbol(frame, symbol):
    (record,) = read_records(frame(symbol=symbol))
    assert record.isotope == {"D": "D", "2": "D", "T": "T", "3": "T"}[symbol[0].upper()]
    assert decode_record(encode_record(record)).isotope == record.isotope


@pytest.mark.parametrize("column", ["masses", "mass"])
def test_isotopes_by_mass(frame, column):
    assert read_records(frame("", f":{column}:R:1", "2.014"))[0].isotope == "D"
    assert read_records(frame("", f":{column}:R:1", "1.00784"))[0].isotope == ""
    told = []
    assert read_records(frame("", f":{column}:R:1", "5.0"), told=told)[0].isotope == ""
    assert "not read: masses" in told[0]


def test_mixed_isotopes_and_flags_that_look_like_tritium(frame):
    path = frame("", ":move_mask:L:1", "T")
    assert read_records(path)[0].isotope == ""
    path.write_text(path.read_text().replace("H ", "D ", 2))
    assert read_records(path)[0].isotope == "H6 D2"


def test_records_of_protium_keep_their_bytes(make_record):
    record = make_record(0, 8)
    # The last bytes are the correction of the kinetic energy; nothing comes after it unless there is an isotope.
    assert encode_record(record).endswith(b"\xc0\xc0\xc0")


def test_open_boundaries_are_read_as_periodic_and_said_so(frame):
    told = []
    read_records(frame('pbc="T T F"'), told=told)
    assert "pbc" in told[0]


def test_notes_of_a_trajectory_come_from_the_reading_process(tmp_path, make_atoms):
    atoms = [make_atoms(8), make_atoms(8)]
    for frame in atoms:
        frame.info["mace_energy"] = -3.0
    write(tmp_path / "x.traj", atoms)
    told = []
    assert len(read_records(tmp_path / "x.traj", told=told)) == 2
    assert told == [told[0]]
    assert told[0].startswith(f"{tmp_path / 'x.traj'}: not read: mace_energy (2 frames)")


# ---------------------------------------------------------------- energies in other units


def lattice(number: int, r_s: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A cube of N protons at r_s, a little off a simple lattice."""
    edge = (4 * np.pi / 3 * number) ** (1 / 3) * r_s
    side = {2: (1, 1, 2), 4: (1, 2, 2), 8: (2, 2, 2), 16: (2, 2, 4), 54: (3, 3, 6)}[number]
    cell = edge * np.diag(side) / np.prod(side) ** (1 / 3)
    places = np.stack(np.meshgrid(*map(np.arange, side), indexing="ij"), -1).reshape(-1, 3) / side
    return cell, (places + np.random.default_rng(seed).normal(scale=0.01, size=places.shape)) @ cell


@pytest.mark.parametrize("scale", ["atom", "Ry", "Ha"])
@pytest.mark.parametrize("number", [8, 16, 54])
def test_energies_that_are_no_totals_in_ev_are_noticed(tmp_path, number, scale):
    cell, protons = lattice(number, 1.4)
    atoms = Atoms(f"H{number}", positions=protons * units.Bohr, cell=cell * units.Bohr, pbc=True)
    true = -0.53 * number * units.Hartree
    atoms.info["energy"] = true
    write(tmp_path / "x.xyz", atoms, format="extxyz")
    assert read_records(tmp_path / "x.xyz")[0].energy is not None
    atoms.info["energy"] = true * {"atom": 1 / number, "Ry": 1 / units.Rydberg, "Ha": 1 / units.Hartree}[scale]
    write(tmp_path / "x.xyz", atoms, format="extxyz")
    assert "is it in eV, of the whole cell" in refusal(tmp_path / "x.xyz")


@pytest.mark.parametrize("number", [2, 4])
def test_few_protons_are_doubted_unless_the_twist_is_known(tmp_path, number):
    cell, protons = lattice(number, 1.4)
    atoms = Atoms(f"H{number}", positions=protons * units.Bohr, cell=cell * units.Bohr, pbc=True)
    atoms.info["energy"] = -0.53 * number  # Ha
    write(tmp_path / "x.xyz", atoms, format="extxyz")
    told = []
    read_records(tmp_path / "x.xyz", told=told)
    assert "is it in eV" in told[0]
    if number == 2:
        # At the twist of zero, two electrons have no kinetic energy at all.
        atoms.info["twist"] = [0.0, 0.0, 0.0]
        write(tmp_path / "x.xyz", atoms, format="extxyz")
        assert "too high for hydrogen" in refusal(tmp_path / "x.xyz")


@pytest.mark.parametrize(
    ("r_s", "number", "energy"),
    [
        (1.1, 54, -0.436),  # reptation QMC
        (1.3, 54, -0.5108),  # reptation QMC
        (2.0, 16, -0.35),  # Hartree-Fock, no correlation
        (0.8, 54, 1.105 / 0.8**2 - 1.354 / 0.8 - 0.08),  # the uniform metal and 0.08 Ha for correlation and screening
        (0.5, 54, 1.105 / 0.5**2 - 1.354 / 0.5 - 0.08),
    ],
)
def test_true_energies_lie_below_the_highest(r_s, number, energy):
    usual, worst = highest_energy(*lattice(number, r_s), None)
    assert energy < usual <= worst


def test_molecules_in_a_box_lie_below_the_highest():
    cell, protons = 16.0 * np.eye(3), np.array([[0.0, 0.0, 0.0], [1.4, 0.0, 0.0]])
    usual, worst = highest_energy(cell, protons, None)
    assert -0.587 < usual == worst < -0.587 / 2 + 0.01  # the energy per atom is told from that of the cell
    close = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert highest_energy(cell, close, None)[0] > -0.263  # the molecule pressed to 0.5 bohr (Kolos and Wolniewicz)
