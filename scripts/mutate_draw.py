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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_TRIVIAL = re.compile(r"(?:_BitOr|_BitAnd|_BitXor|_RShift|_LShift)|ReplaceBinaryOperator_Bit")
_LEFT_OUT = ("core/AddNot", "core/RemoveDecorator", "core/VariableInserter", "core/VariableReplacer")
"""`AddNot` doubles what other operators do; decorators and variables mostly end in an error."""


class Change(NamedTuple):
    """One change of one place.

    Args:
        room: whose tests should notice it.
        path: of the file.
        start: line and column.
        operator: cosmic-ray's name of the change.
        occurrence: which of the file's places for this operator it is.
    """

    room: str
    path: str
    start: tuple[int, int]
    operator: str
    occurrence: int


def changes(modules: Mapping[str, Sequence[str]]) -> list[Change]:
    """Every change that is not trivial."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    classes = {name: get_operator(name) for name in operator_names() if not _trivial(name)}
    # an operator with arguments does nothing by itself
    operators = {name: one() for name, one in classes.items() if not one.arguments()}
    found = []
    for room, paths in modules.items():
        for path in paths:
            # once for all operators: cosmic-ray's own command walks and keeps books for each
            nodes = list(ast_nodes(get_ast_from_path(Path(path))))
            for name, operator in operators.items():
                starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
                found += [Change(room, path, start, name, at) for at, start in enumerate(starts)]
    return found


def _trivial(operator: str) -> bool:
    return bool(_TRIVIAL.search(operator)) or operator.startswith(_LEFT_OUT)


def by_place(found: Sequence[Change]) -> dict[tuple[str, tuple[int, int]], list[Change]]:
    """The changes of each place, so that a line with many possible ones does not count more."""
    places: dict[tuple[str, tuple[int, int]], list[Change]] = {}
    for one in found:
        places.setdefault((one.path, one.start), []).append(one)
    return places


def drawn(places: Mapping[tuple[str, tuple[int, int]], list[Change]], count: int, seed: int) -> list[Change]:
    """Places by chance, and one change for each."""
    rng = random.Random(seed)
    chosen = rng.sample(sorted(places), min(count, len(places)))
    return [rng.choice(sorted(places[place], key=lambda one: one.operator)) for place in chosen]


def place_of(path: str, line: str, column: int) -> list[Any]:
    """A place's name that stays the same when lines above it come or go."""
    return [path, line.strip(), column]


def described(number: int, change: Change) -> dict[str, Any]:
    """Where a change is, and the whole file with it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    code = Path(change.path).read_text(encoding="utf-8")
    line, column = change.start
    return {
        "number": number,
        "room": change.room,
        "file": change.path,
        "line": line,
        "place": place_of(change.path, code.splitlines()[line - 1], column),
        "operator": change.operator,
        "text": mutate_code(code, get_operator(change.operator)(), change.occurrence),
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
