"""The layouts of the QMC-HAMM data base: .traj frames, and HDF5 files of named arrays."""

import h5py
import numpy as np
import pytest
from ase import units
from ase.io import write

from fnqs.errors import InputError
from fnqs_data.readers import read_records

GPA = units.GPa * units.Bohr**3 / units.Hartree
R_S = 4.0 * (3 / (4 * np.pi * 8)) ** (1 / 3)  # 8 protons in a cube of 4 bohr


@pytest.fixture
def arrays(tmp_path, make_atoms):
    """A function (changes of the file) that writes the newer HDF5 layout and returns its path."""

    def make(change=None):
        atoms, path = make_atoms(8), tmp_path / "arrays.h5"
        with h5py.File(path, "w") as file:
            file.attrs.update(natoms=8, method="DMC", temperature=1200.0, pressure=150.0, rs=R_S, phase="liquid")
            file.attrs.update(uuid="00ff", species=np.array([b"H"]), method_kws=np.array([b"pbe", b"twist_averaged"]))
            file["structure/lattice_vectors"] = np.array(atoms.cell)
            file["structure/positions"] = atoms.positions
            file["observables/total_energy"] = np.array([-100.0])
            file["observables/total_energy_error"] = np.array([0.04])
            file["observables/forces"] = np.full((1, 8, 3), 0.25)
            file["observables/fsc_potential_energy"] = np.array([3.0])
            file["observables/fsc_kinetic_energy"] = np.array([2.0])
            file["observables/total_energy_uncorrected"] = np.array([-105.0])
            file["observables"].attrs["finite_size_corrected"] = True
            if change:
                change(file)
        return path

    return make


def replaced(name, value):
    """A change of a file: one data set with another value, or none."""

    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


def test_arrays_with_their_labels(arrays, make_atoms):
    (record,) = read_records(arrays())
    np.testing.assert_array_equal(record.configuration.protons, make_atoms(8).positions / units.Bohr)
    np.testing.assert_array_equal(record.configuration.cell, np.array(make_atoms(8).cell) / units.Bohr)
    assert record.n_atoms == 8
    assert record.wigner_seitz_radius == pytest.approx(R_S, rel=1e-12)  # rounding of eight products
    # One division by the Hartree, so only the last digit may differ.
    assert record.energy == pytest.approx(-100.0 / units.Hartree, abs=1e-12)
    assert record.energy_error == pytest.approx(0.04 / units.Hartree, abs=1e-12)
    assert record.potential_correction == pytest.approx(3.0 / units.Hartree, abs=1e-12)
    assert record.kinetic_correction == pytest.approx(2.0 / units.Hartree, abs=1e-12)
    np.testing.assert_allclose(record.forces, 0.25 * units.Bohr / units.Hartree, rtol=1e-12)
    assert record.corrected is True
    assert (record.phase, record.temperature, record.pressure) == ("liquid", 1200.0, 150.0)
    assert record.method == "DMC (pbe, twist_averaged)"
    assert (record.source, record.frame, record.stress) == ("arrays.h5", 0, None)


def test_the_numbers_say_whether_the_energy_is_corrected(arrays):
    (record,) = read_records(arrays(replaced("observables/total_energy_uncorrected", np.array([-100.0]))))
    assert record.corrected is False
    with pytest.raises(InputError, match="neither total_energy_uncorrected"):
        read_records(arrays(replaced("observables/total_energy_uncorrected", np.array([-101.0]))))
    # Without the numbers the file's own word counts.
    (record,) = read_records(arrays(replaced("observables/total_energy_uncorrected", None)))
    assert record.corrected is True

    def silent(file):
        del file["observables/total_energy_uncorrected"]
        del file["observables"].attrs["finite_size_corrected"]

    assert read_records(arrays(silent))[0].corrected is None


def test_labels_filled_with_nan_are_absent(arrays):
    def absent(file):
        for name in file["observables"]:
            file["observables"][name][...] = np.nan
        file.attrs["pressure"] = np.nan

    (record,) = read_records(arrays(absent))
    labels = (record.energy, record.energy_error, record.forces, record.potential_correction, record.pressure)
    assert labels == (None,) * 5

    def partly(file):
        file["observables/forces"][0, 0] = np.nan

    with pytest.raises(InputError, match="forces contain NaN"):
        read_records(arrays(partly))


@pytest.mark.parametrize(("stored", "kept"), [(1.0, True), (-1.0, True), (10.0, False), (0.0, False)])
def test_a_stress_is_kept_with_the_sign_that_the_pressure_confirms(arrays, stored, kept):
    stress = np.diag([-140.0, -150.0, -160.0]) + 3.0 * np.eye(3)[[1, 0, 2]] * (1 - np.eye(3))

    def labelled(file):
        file["observables/stress"] = stored * stress
        file["observables/pressure"] = np.array([150.0])

    (record,) = read_records(arrays(labelled))
    if not kept:
        assert record.stress is None
        return
    np.testing.assert_allclose(record.stress, stress * GPA, rtol=1e-12)
    assert -np.trace(record.stress) / 3 / GPA == pytest.approx(150.0)


def _other_unit(file):
    del file["observables/total_energy_uncorrected"]
    file["observables/total_energy"][...] = -1e5


def _link_out(file):
    del file["structure/positions"]
    file["structure/positions"] = h5py.ExternalLink("other.h5", "/positions")


def _data_elsewhere(file):
    del file["structure/positions"]
    file.create_dataset("structure/positions", (8, 3), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def _huge(file):
    del file["structure/positions"]
    file.create_dataset("structure/positions", (10**10, 3), "f8", chunks=(1024, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replaced("structure/positions", None), "no structure/positions"),
        (replaced("structure/lattice_vectors", None), "no structure/lattice_vectors"),
        (replaced("structure/positions", np.zeros((7, 3))), "shape"),
        (replaced("structure/positions", "many words"), "not numbers"),
        (replaced("structure/lattice_vectors", np.full((3, 3), np.nan)), "NaN"),
        (replaced("structure/lattice_vectors", 5 * np.eye(3)), "states r_s"),
        (replaced("observables/total_energy", np.array([-100.0, -100.0])), "shape"),
        (_other_unit, "cannot be that of hydrogen"),
        (_link_out, "link"),
        (_data_elsewhere, "another file"),
        (_huge, "shape"),
        (lambda file: file.attrs.update(natoms=2**60), "natoms"),
        (lambda file: file.attrs.update(species=np.array([b"H", b"He"])), "He"),
        (lambda file: file.attrs.update(temperature="hot"), "temperature"),
    ],
)
def test_damaged_arrays_are_one_sentence(arrays, change, says):
    with pytest.raises(InputError, match=r"arrays\.h5: frame 0: ") as error:
        read_records(arrays(change))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_trajectory_frames(tmp_path, make_atoms):
    path = tmp_path / "dmc_mean.traj"
    frames = [make_atoms(8, energy=-100.0 - i) for i in range(3)]
    for i, atoms in enumerate(frames):
        atoms.info.update(iconf=10 * i, uuid=f"u{i}", fsc_dv_ev=1.5 + i, fsc_dt_ev=0.25)
        atoms.calc.results["stress"] = np.array([1.0, 2.0, 3.0, 0.5, 0.25, 0.125]) * units.GPa
    write(path, frames)
    for i, record in enumerate(read_records(path)):
        # .traj keeps every bit; the conversions round once.
        np.testing.assert_array_equal(record.configuration.protons, frames[i].positions / units.Bohr)
        assert record.energy == pytest.approx((-100.0 - i) / units.Hartree, abs=1e-12)
        assert record.corrected is True
        assert record.potential_correction == pytest.approx((1.5 + i) / units.Hartree, abs=1e-12)
        assert record.kinetic_correction == pytest.approx(0.25 / units.Hartree, abs=1e-12)
        assert "QMC-HAMM" in record.method
        expected = GPA * np.array([[1.0, 0.125, 0.25], [0.125, 2.0, 0.5], [0.25, 0.5, 3.0]])
        np.testing.assert_allclose(record.stress, expected, rtol=1e-12)
        assert (record.frame, record.source) == (i, "dmc_mean.traj")
    assert [r.frame for r in read_records(path, slice(1, None))] == [1, 2]
