"""The groups that options stand in on the page of `--help`; rarely needed ones come last."""

from cyclopts import Group

_RARE = ", rarely needed"

INPUT = Group("Input", sort_key=1)
COMPUTE = Group("What to compute", sort_key=3)
OUTPUT = Group("Output", sort_key=4)
RARE_INPUT = Group(f"Input{_RARE}", sort_key=11)
RARE_COMPUTE = Group(f"What to compute{_RARE}", sort_key=13)
