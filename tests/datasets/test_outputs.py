"""Outputs of VASP and Quantum ESPRESSO: which of their numbers are labels, and what is missing in them."""

import numpy as np
import pytest
from ase import units

from fnqs.errors import InputError
from fnqs_data.readers import iterate_records, read_records

EDGE = 4.0 * units.Bohr
ROWS = [(x / 2, y / 2, z / 2) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read_records(path)
    assert path.name in str(error.value)
    return str(error.value)


def test_an_output_of_vasp_that_broke_off(tmp_path):
    edge = EDGE
    rows = "".join(f"<v>{x} {y} {z}</v>" for x, y, z in ROWS)
    basis = "".join(f"<v>{' '.join(str(edge * (i == j)) for j in range(3))}</v>" for i in range(3))
    crystal = f'<crystal><varray name="basis">{basis}</varray></crystal><varray name="positions">{rows}</varray>'
    kinds = "<rc><c>H </c><c>1</c></rc>" * 8
    scf = "".join(f'<i name="{name}">{e}</i>' for name, e in (("e_fr_energy", -100.0), ("e_0_energy", -110.0)))
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<parameters><separator name="electronic">'
        '<i name="NELECT">{electrons}</i></separator></parameters>\n'
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>\n'
        f'<atominfo><array name="atoms"><set>{kinds}</set></array></atominfo>\n'
        f'<structure name="initialpos">{crystal}</structure>\n'
        f"<calculation><scstep><energy>{scf}</energy></scstep><structure>{crystal}</structure>"
        '<energy><i name="e_fr_energy">-100.0</i></energy></calculation>\n</modeling>\n'
    )
    path = tmp_path / "vasprun.xml"
    path.write_text(text.replace("{electrons}", "8.0"))
    told = []
    (record,) = read_records(path, told=told)
    assert (record.n_atoms, record.energy) == (8, None)
    assert "reference atoms" in told[0]
    path.write_text(text.replace("{electrons}", "7.0"))
    assert "its charge is 1" in refusal(path)
    path.write_text(text.replace("{electrons}", "8.0").replace("</modeling>\n", ""))
    items = list(iterate_records(path))
    assert "</modeling>" in str(items[-1])


def test_an_outcar(tmp_path):
    places = "".join(f"  {x * EDGE:.5f} {y * EDGE:.5f} {z * EDGE:.5f}   0.1 0.2 0.3\n" for x, y, z in ROWS)
    vectors = "".join(f"  {' '.join(f'{EDGE * (i == j):.9f}' for j in range(3))} 0.0 0.0 0.0\n" for i in range(3))
    head = (
        " vasp.6.3.0 20Jan22 complex\n POTCAR:    PAW_PBE H 15Jun2001\n POTCAR:    PAW_PBE H 15Jun2001\n"
        "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8\n"
        "   ISPIN  =      1    spin polarized calculation?\n   NELECT =       8.0000    total number of electrons\n"
        "   ions per type =               8\n k-points in reciprocal lattice and weights: Gamma\n  0.0 0.0 0.0  1.0\n"
        "--------------------------------------- Iteration      1(   1)  ---------------------------------------\n"
    )
    frame = (
        "  in kB    1500.0 1600.0 1700.0 10.0 20.0 30.0\n"
        f"      direct lattice vectors                 reciprocal lattice vectors\n{vectors}"
        f" POSITION                                       TOTAL-FORCE (eV/Angst)\n ----\n{places}"
        "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ----\n  free  energy   TOTEN  =      -100.0 eV\n\n"
        "  energy  without entropy=     -105.0  energy(sigma->0) =     -110.0\n"
    )
    end = " General timing and accounting informations for this job:\n"
    path = tmp_path / "OUTCAR"
    path.write_text(head + frame * 2 + end)
    (tmp_path / "CONTCAR").write_text("this is read by nobody\n")
    told = []
    one, two = read_records(path, told=told)
    assert (one.frame, two.frame, one.n_atoms) == (0, 1, 8)
    assert one.energy is None
    assert "reference atoms" in told[0]
    np.testing.assert_allclose(one.forces[0] * units.Hartree / units.Bohr, [0.1, 0.2, 0.3])
    # XX YY ZZ XY YZ ZX, positive under pressure, in VASP.
    expected = -0.1 * np.array([[1500, 10, 30], [10, 1600, 20], [30, 20, 1700]])
    np.testing.assert_allclose(one.stress * units.Hartree / units.Bohr**3 / units.GPa, expected, rtol=1e-6)
    path.write_text(head + frame + frame[:200])
    items = list(iterate_records(path))
    assert [isinstance(item, InputError) for item in items] == [False, True]
    assert "complete" in str(items[1])
    path.write_text((head + frame + end).replace("8.0000", "9.0000"))
    assert "its charge is -1" in refusal(path)


def pwscf(smearing: bool = False, electrons: float = 8.0, end: str = "   JOB DONE.\n") -> str:
    axes = "".join(f"  a({i + 1}) = ( {' '.join(f'{float(i == j):.6f}' for j in range(3))} )\n" for i in range(3))
    sites = "".join(f"  {i + 1}   H  tau( {i + 1}) = ( {x:.7f} {y:.7f} {z:.7f} )\n" for i, (x, y, z) in enumerate(ROWS))
    forces = "".join(f"  atom  {i + 1} type  1   force =  0.01 0.02 0.03\n" for i in range(8))
    return (
        "     Program PWSCF v.7.2 starts on 1Jan2024\n     number of atoms/cell      =            8\n"
        f"     number of atomic types    =            1\n     number of electrons       =   {electrons:.2f}\n"
        f"     celldm(1)=   4.000000  celldm(2)=   0.000000\n     crystal axes: (cart. coord. in units of alat)\n{axes}"
        f"     site n.     atom                  positions (alat units)\n{sites}\n"
        "!    total energy              =      -8.10000000 Ry\n"
        + ("     smearing contrib. (-TS)   =      -0.05000000 Ry\n" if smearing else "")
        + f"     Forces acting on atoms (cartesian axes, Ry/au):\n\n{forces}\n"
        "     Computing stress (Cartesian axis) and pressure\n"
        "          total   stress  (Ry/bohr**3)                   (kbar)     P=     1471.0\n"
        + "   0.010 0.001 0.002   1471.0 147.1 294.2\n   0.001 0.011 0.003   147.1 1618.0 441.0\n"
        "   0.002 0.003 0.012   294.2 441.0 1765.0\n" + end
    )


def test_an_output_of_quantum_espresso(tmp_path):
    path = tmp_path / "h.out"
    path.write_text(pwscf())
    (record,) = read_records(path)
    assert record.energy * units.Hartree == pytest.approx(-8.1 * units.Rydberg, rel=1e-6)  # two sets of constants
    assert record.wigner_seitz_radius == pytest.approx(4.0 / (32 * np.pi / 3) ** (1 / 3), rel=1e-6)
    np.testing.assert_allclose(record.forces[0], np.array([0.01, 0.02, 0.03]) / 2, rtol=1e-6)
    expected = -0.5 * np.array([[0.010, 0.001, 0.002], [0.001, 0.011, 0.003], [0.002, 0.003, 0.012]])
    np.testing.assert_allclose(record.stress, expected, rtol=1e-6)
    told = []
    path.write_text(pwscf(smearing=True))
    assert read_records(path, told=told)[0].energy is None
    assert "free_energy" in told[0]
    path.write_text(pwscf(electrons=7.0))
    assert "its charge is 1" in refusal(path)
    path.write_text(pwscf(end=""))
    assert "JOB DONE" in refusal(path)
