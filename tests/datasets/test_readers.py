import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import units
from ase.io import iread, write

from fnqs.errors import InputError
from fnqs_data.readers import iterate_records, read_records
from fnqs_data.store.write import write_dataset

SHARED = os.environ.get("FNQS_SHARED_DATA")
needs_shared = pytest.mark.skipif(not SHARED, reason="FNQS_SHARED_DATA does not name the folder of real files")

# Text formats keep 8 decimals of Å or eV; energies are printed in full.
POSITION_TOLERANCE = 2e-8


def test_extxyz_units_labels_and_provenance(tmp_path, make_atoms):
    path = tmp_path / "two@3.extxyz"
    first, second = make_atoms(4), make_atoms(8, energy=-100.0)
    second.info.update(twist=[0.25, 0.0, 0.5], phase="liquid", temperature=1200, pressure=150, energy_error=0.5)
    second.info.update(fsc_dv_ev=1.0, fsc_dt_ev=2.0)
    write(path, [first, second], format="extxyz")
    one, two = read_records(path)
    assert [one.identifier, two.identifier] == ["two@3.extxyz#0", "two@3.extxyz#1"]
    assert (one.n_atoms, two.n_atoms) == (4, 8)
    np.testing.assert_allclose(one.configuration.cell, 4.0 * np.eye(3), atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(one.configuration.protons, first.positions / units.Bohr, atol=2 * POSITION_TOLERANCE)
    # The printed energy has 16 digits, so only conversion rounding is left.
    assert two.energy == pytest.approx(-100.0 / units.Hartree, abs=1e-12)
    assert two.energy_error == pytest.approx(0.5 / units.Hartree, abs=1e-12)
    np.testing.assert_allclose(two.forces, 0.25 * units.Bohr / units.Hartree, rtol=1e-7)
    assert (one.phase, one.corrected, one.temperature) == ("unknown", None, None)
    assert (two.phase, two.corrected, two.temperature, two.pressure) == ("liquid", True, 1200.0, 150.0)
    assert two.configuration.twist.tolist() == [0.25, 0.0, 0.5]
    assert (two.source, two.frame) == (path.name, 1)
    assert one.digest == two.digest != ""


def test_frame_ranges(tmp_path, make_atoms):
    path = tmp_path / "many.extxyz"
    write(path, [make_atoms(4, energy=-float(i)) for i in range(6)])
    assert [r.frame for r in read_records(path, slice(1, 6, 2))] == [1, 3, 5]
    assert [round(r.energy * units.Hartree) for r in read_records(path, slice(4, None))] == [-4, -5]
    with pytest.raises(InputError, match="no such frames"):
        read_records(path, slice(10, 12))
    with pytest.raises(InputError, match="start of the file"):
        read_records(path, slice(-2, None))


@pytest.mark.parametrize("name", ["POSCAR", "frames.traj", "h.cif", "h.xsf"])
def test_other_formats(tmp_path, make_atoms, name):
    write(tmp_path / name, make_atoms(8))
    (record,) = read_records(tmp_path / name)
    assert record.n_atoms == 8
    # r_s of 8 atoms in a cube of 4 bohr; CIF prints cell lengths with 5 decimals or more.
    assert record.wigner_seitz_radius == pytest.approx((3 * 64 / (4 * np.pi * 8)) ** (1 / 3), rel=1e-5)


def test_a_data_set_folder_reads_back(tmp_path, records):
    write_dataset(tmp_path / "set", records)
    read_back = read_records(tmp_path / "set", slice(3, 5))
    assert [r.identifier for r in read_back] == [r.identifier for r in records[3:5]]


def test_qmc_hamm_layout(tmp_path, make_atoms):
    atoms = make_atoms(8)
    atoms.info.update(phase="liquid", temperature=2000, pressure=150, method="NPT", fsc_dv_ev=6.5, fsc_dt_ev=4.6)
    write(tmp_path / "text.xyz", atoms, format="extxyz")
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["xyz_data"] = (tmp_path / "text.xyz").read_text()
    (record,) = read_records(tmp_path / "one.hdf5")
    assert record.n_atoms == 8
    assert record.energy == pytest.approx(-50.0 / units.Hartree, abs=1e-12)
    assert (record.phase, record.temperature, record.pressure) == ("liquid", 2000.0, 150.0)
    assert record.corrected is True
    assert "NPT" not in record.method
    assert record.identifier == "one.hdf5#0"


def _odd(atoms):
    del atoms[-1]


def _helium(atoms):
    atoms[0].symbol = "He"


def _no_cell(atoms):
    atoms.cell[:] = 0
    atoms.pbc = False


def _flat(atoms):
    atoms.cell[2] = atoms.cell[1]


def _close(atoms):
    atoms.positions[1] = atoms.positions[0] + [0.1, 0, 0]


def _image(atoms):
    atoms.positions[1] = atoms.positions[0] + atoms.cell[0] + [0.1, 0, 0]


def _nan(atoms):
    atoms.positions[2, 1] = np.nan


def _twist(atoms):
    atoms.info["twist"] = [0.1, 0.2]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_odd, "even number"),
        (_helium, "He"),
        (_no_cell, "no cell"),
        (_flat, "cell"),
        (_close, "closer than 0.3"),
        (_image, "closer than 0.3"),
        (_nan, "NaN"),
        (_twist, "twist"),
    ],
)
def test_a_bad_frame_is_named(tmp_path, make_atoms, spoil, says):
    path = tmp_path / "bad.extxyz"
    atoms = make_atoms(4)
    atoms.calc = None
    spoil(atoms)
    write(path, [make_atoms(4), atoms, make_atoms(8)], format="extxyz")
    with pytest.raises(InputError, match=r"bad\.extxyz: frame 1: ") as error:
        read_records(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    items = list(iterate_records(path))
    assert [isinstance(item, InputError) for item in items] == [False, True, False]


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_a_label_that_is_not_finite_is_refused(tmp_path, make_atoms, label):
    atoms = make_atoms(4)
    atoms.calc.results[label] = atoms.calc.results[label] * np.nan
    write(tmp_path / "bad.extxyz", atoms)
    with pytest.raises(InputError, match="frame 0"):
        read_records(tmp_path / "bad.extxyz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.extxyz", None),
        ("empty.extxyz", b""),
        ("noise.extxyz", bytes(range(256))),
        ("noise.traj", bytes(range(256))),
        ("noise", b"\x00\x01\x02 what is this"),
        ("words.extxyz", b"this is\nno file of atoms\n"),
        ("huge.extxyz", b'999999999\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nH 0 0 0\n'),
        ("cut.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(40)),
        ("pickled.traj", b"PickleTrajectory" + bytes(64)),
        ("POSCAR", b"H\n1.0\n4 0 0\n0 4 0\n"),
    ],
)
def test_unreadable_files_are_input_errors(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_records(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_other_hdf5_and_folders_are_input_errors(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["positions"] = np.zeros((2, 3))
    with pytest.raises(InputError, match="xyz_data"):
        read_records(tmp_path / "other.hdf5")
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_records(tmp_path)


def test_a_truncated_file_gives_its_good_frames_and_then_an_error(tmp_path, make_atoms):
    path = tmp_path / "cut.extxyz"
    write(path, [make_atoms(4), make_atoms(4)])
    path.write_bytes(path.read_bytes()[:-150])
    items = list(iterate_records(path))
    assert isinstance(items[-1], InputError)
    assert "cut.extxyz" in str(items[-1])


@needs_shared
def test_real_reptation_qmc_file(tmp_path):
    path = Path(str(SHARED)) / "qmc_atomic_h_200.extxyz"
    records = read_records(path, slice(0, None, 10))
    assert len(records) == 20
    stored = write_dataset(tmp_path / "set", records).read(range(20))
    for record, kept, atoms in zip(records, stored, iread(path, index="::10"), strict=True):
        assert record.n_atoms == len(atoms)
        # The labels agree to the last digits of a float64 near -100 Ha.
        assert record.energy == pytest.approx(atoms.get_potential_energy() / units.Hartree, abs=1e-9)
        assert kept.energy == record.energy
        np.testing.assert_array_equal(record.configuration.cell, np.array(atoms.cell) / units.Bohr)
        np.testing.assert_array_equal(kept.configuration.protons, atoms.positions / units.Bohr)
        np.testing.assert_allclose(kept.forces, atoms.get_forces() * units.Bohr / units.Hartree, rtol=1e-12)
        volume = atoms.get_volume() / units.Bohr**3
        assert record.wigner_seitz_radius == pytest.approx((3 * volume / (4 * np.pi * len(atoms))) ** (1 / 3))
        assert kept.corrected is None


@needs_shared
def test_real_qmc_hamm_file(tmp_path):
    (record,) = read_records(Path(str(SHARED)) / "qmchamm_example.hdf5")
    assert record.n_atoms == 96
    assert record.wigner_seitz_radius == pytest.approx(1.504, abs=5e-4)  # the file gives three decimals
    assert record.energy * units.Hartree == pytest.approx(-1421.4786592749133, abs=1e-9)
    assert record.corrected is True
    assert record.potential_correction * units.Hartree == pytest.approx(6.555086659031757, abs=1e-9)
    assert record.kinetic_correction * units.Hartree == pytest.approx(4.678880430309918, abs=1e-9)
    assert (record.phase, record.temperature, record.pressure) == ("liquid", 2000.0, 150.0)
    assert "NPT" not in record.method
    (kept,) = write_dataset(tmp_path / "set", [record]).read([0])
    assert (kept.energy, kept.digest, kept.frame) == (record.energy, record.digest, 0)
    np.testing.assert_array_equal(kept.configuration.protons, record.configuration.protons)
