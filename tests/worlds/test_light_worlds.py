"""The worlds that need nothing more than the package: recorded, checked, trained on for two steps."""

import pytest
from recorded import records_and_trains


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "options"),
    [
        ("minigrid", []),
        ("frozenlake", ["--option", "slippery=true"]),
        ("sokoban", ["--option", "boxes=2"]),
        ("sudoku", ["--option", "coordinates=false"]),
    ],
)
def test_a_recording_is_checked_and_trained_on(swirl, tmp_path, world, options):
    report = records_and_trains(swirl, tmp_path, world, *options, "--transitions", 400, "--max-steps", 8)
    assert "400 transitions" in report and "labelled          100.0%" in report
    # On slippery ice a state and an action have several outcomes; elsewhere a state says everything.
    conflicts = int(report.split("conflicts")[1].split()[0])
    assert (conflicts > 0) == (world == "frozenlake")
