"""Make the pictures of the documentation with the examples: `python docs/pictures/make.py [NAME ...]`.

Five minutes for all but silicon_amorphous and silicon_under_pressure, half an hour each, and ice_infrared, two hours.

Every picture is what an example draws, reduced to 1,100 pixels and 256 colors.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
ICE = "--repeat 4 --time 4 --pressures 20 30 40 50 60 70 80 90 100 110"  # two hours
MELT = "13_melting_under_pressure.py --cells 8 --steps 3000"  # half an hour
PICTURES = {
    "silicon_md": "01_relax_and_md.py",
    "silicon_melting": "02_dos_along_melting.py --cells 3 --steps 2400",
    "silicon_under_pressure": f"{MELT} --anew",
    "silicon_components": MELT,
    "silicon_amorphous": "15_amorphous_silicon.py --cells 4 --steps 6000",
    "magnesium_oxide": "17_magnesium_oxide.py",
    "magnesium_oxide_gap": "17_magnesium_oxide.py",
    "magnesium_oxide_waves": "18_longitudinal_modes.py",
    "aluminium_density": "03_aluminium_ml_dft.py",
    "aluminium_electrons": "05_aluminium_electrons.py",
    "ice_born_charges": "08_born_charges.py",
    "ice_infrared": f"07_ice_infrared.py {ICE}",
    "ice_in_a_field": "19_ice_in_a_field.py",
    "ice_protons": f"09_ice_structure.py {ICE}",  # of the same runs
    "water_infrared": "14_water_infrared.py --time 10",  # with --experiment FILE beside the measured one
    "water_raman": "16_water_raman.py output/16_response/water.safetensors",  # a model of benchmarks/water_response.py
    "graphene_bands": "10_twisted_graphene.py --angles 21.79 6.01",
    "silicon_laser_pulse": "12_silicon_laser_pulse.py",
    "mos2_bands": "11_twisted_mos2.py --cells 8.95",
}
# where it is not named as the example
FILES = {"silicon_components": "13_components.png", "magnesium_oxide_gap": "17_gap_under_pressure.png"}
WIDTH, COLORS = 1100, 256


def make(name):
    """Run the example and keep its picture, smaller."""
    example, *options = PICTURES[name].split()
    subprocess.run([sys.executable, example, *options], cwd=EXAMPLES, check=True)
    file = FILES.get(name, example.replace(".py", ".png"))
    image = Image.open(EXAMPLES / "output" / file).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLORS, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        make(name)
