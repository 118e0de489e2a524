"""Draws changes of the source, for `mutate.py`; runs in the environment that has cosmic-ray.

    python scripts/mutate_draw.py REQUEST

REQUEST is a file of JSON: `modules` (a room's name to the paths of its files), `mutants`, `seed`, and
`without`, places that are not to be drawn. For each change a line of JSON goes to the standard output: where
it is, and the whole file with it. The first line says how many places there are to draw from.
"""

import json
import random
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_TRIVIAL = re.compile(r"(?:_BitOr|_BitAnd|_BitXor|_RShift|_LShift)|ReplaceBinaryOperator_Bit")
_LEFT_OUT = ("core/AddNot", "core/RemoveDecorator", "core/VariableInserter", "core/VariableReplacer")
"""`AddNot` doubles what other operators do; decorators and variables mostly end in an error."""


class Change(NamedTuple):
    """One change of one place, as cosmic-ray names it.

    Args:
        room: whose tests should notice it.
        spec: cosmic-ray's `MutationSpec`.
    """

    room: str
    spec: Any


def changes(modules: Mapping[str, Sequence[str]]) -> list[Change]:
    """Every change that is not trivial."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    found = []
    for room, paths in modules.items():
        with (
            tempfile.TemporaryDirectory() as scratch,
            use_db(str(Path(scratch) / "session.sqlite"), WorkDB.Mode.create) as database,
        ):
            init([Path(path) for path in paths], database, {})
            every = [item.mutations[0] for item in database.work_items]
        found += [Change(room, one) for one in every if not _trivial(one.operator_name)]
    return found


def _trivial(operator: str) -> bool:
    return bool(_TRIVIAL.search(operator)) or operator.startswith(_LEFT_OUT)


def by_place(found: Sequence[Change]) -> dict[tuple[str, tuple[int, int]], list[Change]]:
    """The changes of each place, so that a line with many possible ones does not count more."""
    places: dict[tuple[str, tuple[int, int]], list[Change]] = {}
    for one in found:
        places.setdefault((str(one.spec.module_path), one.spec.start_pos), []).append(one)
    return places


def drawn(places: Mapping[tuple[str, tuple[int, int]], list[Change]], count: int, seed: int) -> list[Change]:
    """Places by chance, and one change for each."""
    rng = random.Random(seed)
    chosen = rng.sample(sorted(places), min(count, len(places)))
    return [rng.choice(sorted(places[place], key=lambda one: one.spec.operator_name)) for place in chosen]


def place_of(path: str, line: str, column: int) -> list[Any]:
    """A place's name that stays the same when lines above it come or go."""
    return [path, line.strip(), column]


def described(number: int, change: Change) -> dict[str, Any]:
    """Where a change is, and the whole file with it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    spec = change.spec
    path = Path(spec.module_path)
    code = path.read_text(encoding="utf-8")
    line, column = spec.start_pos
    operator = get_operator(spec.operator_name)(**spec.operator_args)
    return {
        "number": number,
        "room": change.room,
        "file": path.as_posix(),
        "line": line,
        "place": place_of(path.as_posix(), code.splitlines()[line - 1], column),
        "operator": spec.operator_name,
        "text": mutate_code(code, operator, spec.occurrence),
    }


def main() -> None:
    """Answers one request."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    places = by_place(changes(request["modules"]))
    lines: dict[str, list[str]] = {}
    for path, _ in places:
        lines.setdefault(path, Path(path).read_text(encoding="utf-8").splitlines())
    barred = {tuple(one) for one in request["without"]}
    open_ones = {
        (path, (line, column)): every
        for (path, (line, column)), every in places.items()
        if tuple(place_of(path, lines[path][line - 1], column)) not in barred
    }
    print(json.dumps({"places": len(open_ones)}))
    for number, change in enumerate(drawn(open_ones, request["mutants"], request["seed"])):
        print(json.dumps(described(number, change)), flush=True)


if __name__ == "__main__":
    main()
