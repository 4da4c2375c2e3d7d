"""mlelec convert with MALA's own Be2 snapshots, outside the repository in ../shared/reference/mala."""
from pathlib import Path

import numpy as np
import pytest
from ase_mlelec_entry_points.cli.main import main

from ase_mlelec.io.snapshots import Snapshots

BE2 = Path(__file__).parents[3] / "shared" / "reference" / "mala" / "Be2"
pytestmark = pytest.mark.skipif(not BE2.exists(), reason=f"no reference data in {BE2}")
SOURCE, UPF = str(BE2 / "Be_snapshot0.info.json"), str(BE2 / "Be.pbe-n-rrkjus_psl.1.0.0.UPF")


def test_snapshots(tmp_path, capsys):
    target = tmp_path / "be.h5"
    assert main(["convert", SOURCE, str(target), "--grid", "-5", "20", "--upf", UPF]) == 0
    assert "1 snapshots with 11 energies" in capsys.readouterr().out
    snapshots = Snapshots(target)
    assert snapshots.attributes["xc"] == "pbe" and snapshots.attributes["valence_electrons"] == {"Be": 2.0}
    snapshot, = snapshots
    assert snapshot.shape == (18, 18, 27)
    electrons = snapshot.density.mean() * snapshot.atoms.get_volume()
    np.testing.assert_allclose(electrons, 2.0 * len(snapshot.atoms), rtol=1e-6)
    stored = np.load(BE2 / "Be_snapshot0.out.npy").reshape(-1, 11)
    np.testing.assert_allclose(snapshot.ldos, stored, atol=stored.max() / 65535)      # the steps of the file


@pytest.mark.parametrize("options, message", [
    ([], "got no --grid"), (["--grid", "-5", "20"], "got no --upf"),
])
def test_missing_options(tmp_path, capsys, options, message):
    assert main(["convert", SOURCE, str(tmp_path / "be.h5"), *options]) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
