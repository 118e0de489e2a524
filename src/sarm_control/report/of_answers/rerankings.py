"""The page of `sarm rerank`: which candidate wins, with and without edits, and which latents decide."""

from collections.abc import Iterator, Sequence

from sarm_control.charts import Figure, LinePoint, Tone, forest, lines, tone_of
from sarm_control.pages import (
    Answer,
    Block,
    Cell,
    Drawing,
    More,
    Page,
    Panels,
    Prose,
    Section,
    SideBySide,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
)
from sarm_control.report.names import edits_in_words, named
from sarm_control.report.of_answers.words import POINTS, Found, made_section, scaled, share_row, tile
from sarm_control.statistics import counted, decimals, fixed

_HERO, _PANEL, _SHOWN = 600, 440, 12
_CHOSEN, _REWARD, _LENGTH = "chosen", "reward", "length"


def reranking_page(found: Found, *, command: str = "") -> Page:
    """The page of a reranking.

    Args:
        found: what `sarm rerank --json` writes.
        command: how it was made.
    """
    line, tone = _verdict(found)
    size = f"{found['candidates']:,} candidates for {counted(found['prompts'], 'prompt')}"
    return Page(
        f"Choice among {size}, scored by {found['model']}",
        line,
        tone,
        _lead(found),
        _tiles(found),
        _hero(found),
        [*_winner(found), *_curves(found), *_latents(found), *_examples(found), _made(found, command)],
        "Made from the summary of sarm rerank.",
    )


def _winners(found: Found) -> dict[str, Found]:
    return {one["attribute"]: one for one in found["winners"]}


def _deciding(found: Found) -> Sequence[Found]:
    listed: Sequence[Found] = found.get("latents", ())
    return listed


def _verdict(found: Found) -> tuple[str, Tone]:
    if not found["edits"]:
        listed = _deciding(found)
        if not listed:
            return "No single latent decides: none changes a winner when it is set to 0.", "unclear"
        share = f"{100 * listed[0]['changed']['mean']:.0f} % of the winners"
        return f"Latent {listed[0]['latent']} decides most: without it {share} change.", "plain"
    changed = found["changed"]["mean"]
    # exactly 0 and no test: how many winners change is counted over these prompts, and edits that change
    # none have no effect on this choice
    if not changed:
        return "The edits change no winner: a null result.", "unclear"
    line = f"The edits change {fixed(100 * changed, 1)} % of the winners"
    chosen = _winners(found).get(_CHOSEN)
    if chosen is None:
        return f"{line}.", "plain"
    tone = tone_of(chosen["change"]["low"], chosen["change"]["high"], more_is="good")
    words = {
        "good": "and the chosen answer of a pair wins more often",
        "bad": "and the chosen answer of a pair wins less often",
    }
    # another winner is no better winner: edits can exchange answers of one worth
    null = "but how often the chosen answer wins shows no clear change: a null result"
    return f"{line}, {words.get(tone, null)}.", tone


def _lead(found: Found) -> list[str]:
    said = [f"Tried: {edits_in_words(found['edits'], {})}."] if found["edits"] else []
    if found["alone"]:
        said.append(f"{counted(found['alone'], 'prompt')} with a single answer left out: it always wins.")
    return said


def _tiles(found: Found) -> list[Tile]:
    n = f"n = {counted(found['prompts'], 'prompt')}"
    if not found["edits"]:
        detail = f"winners that change, {n}"
        listed = _deciding(found)[:3]
        return [
            tile(f"Latent {one['latent']} set to 0", one["changed"], detail, scale=100, unit=" %")
            for one in listed
        ]
    tiles = [tile("How many winners change?", found["changed"], n, scale=100, unit=" %")]
    winners = _winners(found)
    if _CHOSEN in winners:
        one = winners[_CHOSEN]
        tone = tone_of(one["change"]["low"], one["change"]["high"], more_is="good")
        detail = f"{_before_after(one, 100, ' %')}, {n}"
        question = "Does the chosen answer win more often?"
        tiles.append(tile(question, one["change"], detail, tone, scale=100, sign=True, unit=POINTS))
    # three tiles fit: what somebody named goes before the length
    own = [name for name in winners if name not in (_CHOSEN, _REWARD, _LENGTH)]
    for name in [*own[:1], _LENGTH]:
        one, unit = winners[name], " tokens" if name == _LENGTH else ""
        detail = f"{_before_after(one, 1, unit)}, {n}"
        question = "And its length?" if name == _LENGTH else f"And its {name}?"
        tiles.append(tile(question, one["change"], detail, sign=True, unit=unit))
    return tiles[:3]


def _before_after(one: Found, scale: float, unit: str) -> str:
    digits = min(3, decimals(scaled(one["change"], scale)))
    before, after = (fixed(one[when]["mean"] * scale, digits) for when in ("before", "after"))
    return f"{before}{unit} before, {after}{unit} after"


def _hero(found: Found) -> Drawing | None:
    if found["edits"]:
        # edits lower the unedited reward of a winner by construction, since another candidate had the
        # highest; the first chart is of what the edits may improve
        names = [name for name in _winners(found) if name not in (_REWARD, _LENGTH)]
        figure = _curve(found, (names or [_LENGTH])[0])
        return None if figure is None else Drawing(figure, "More candidates are more pressure.", _HERO)
    listed = _deciding(found)
    return _deciders(listed) if listed else None


def _deciders(listed: Sequence[Found]) -> Drawing:
    rows = [share_row(f"latent {one['latent']}", one["changed"]) for one in listed[:_SHOWN]]
    figure = forest(
        rows,
        name="deciders",
        title="How many winners change without each latent.",
        x_title="prompts whose winner changes (%, 95 %)",
    )
    caption = "Each latent alone is set to 0."
    return Drawing(figure, caption, _HERO, numbers=False)


def _curve(found: Found, name: str) -> Figure | None:
    points = []
    for one in found["curve"]:
        if one["attribute"] == name:
            series = {"before": "as it is", "after": "with the edits"}
            for when in ("before", "after") if found["edits"] else ("before",):
                ends = one[when]
                low, high = ends["low"], ends["high"]
                if one["n"] == 1 and low is None:
                    # where all prompts are alike without any choice, the band begins as a point
                    low = high = ends["mean"]
                points.append(LinePoint(series[when], one["n"], ends["mean"], low, high))
    if not points:
        return None
    points.sort(key=lambda point: (point.series, point.x))
    return lines(
        points,
        name=f"best-of-n-{name}",
        title=f"{_words(name)} of the best of N candidates.",
        x_title="N",
        y_title=_unit(name),
        log_x=True,
    )


def _words(name: str) -> str:
    return {_CHOSEN: "Share of chosen answers", _REWARD: "Unedited reward", _LENGTH: "Length"}.get(name, name)


def _unit(name: str) -> str:
    return {_CHOSEN: "share", _REWARD: "reward units", _LENGTH: "tokens"}.get(name, "mean of the winner")


def _winner(found: Found) -> Iterator[Section]:
    if not found["edits"]:
        return
    rows = []
    for one in found["winners"]:
        scale, unit = (100, " %") if one["attribute"] == _CHOSEN else (1, "")
        # the decimals that the change justifies; where nothing changes it justifies none
        digits = decimals(scaled(one["change"] if one["change"]["mean"] else one["before"], scale))
        rows.append(
            TableRow(
                _words(one["attribute"]),
                [
                    interval_cell(one["before"], digits, scale=scale, unit=unit),
                    interval_cell(one["after"], digits, scale=scale, unit=unit),
                    interval_cell(one["change"], digits, scale=scale, sign=True, unit=POINTS if unit else ""),
                    Cell(number(one["rises"], 0)),
                    Cell(number(one["falls"], 0)),
                ],
            )
        )
    caption = f"The winner among all candidates of a prompt, 95 % over {found['prompts']} prompts."
    head = ("Of the winner", "Before", "After", "Change", "Rises", "Falls")
    note = "Reward is the unedited one: what the edits cost in the model's own terms."
    yield Section(
        "winner",
        "What the winner is",
        f"The winner changes for {fixed(100 * found['changed']['mean'], 1)} % of {found['prompts']} prompts.",
        [Table(caption, head, rows), Prose([note], quiet=True)],
    )


def _curves(found: Found) -> Iterator[Section]:
    names = list(dict.fromkeys(one["attribute"] for one in found["curve"]))
    figures = [figure for name in names if (figure := _curve(found, name))]
    if not figures:
        return
    both = bool(found["edits"])
    rows = []
    for one in found["curve"]:
        cells = [Cell(number(one["n"], 0)), Cell(number(one["before"]["n"], 0)), interval_cell(one["before"])]
        cells += [interval_cell(one["after"]), interval_cell(one["change"], sign=True)] if both else []
        rows.append(TableRow(_words(one["attribute"]), cells))
    head = ("Of the winner", "N", "Prompts", "Before" if both else "Mean")
    table = Table(
        "Best of N, exactly, over all sets of N of those given; 95 % over prompts.",
        (*head, "After", "Change") if both else head,
        rows,
    )
    largest = max(one["n"] for one in found["curve"])
    finding = f"N goes to {largest}: the exact mean over all sets of N of the candidates given."
    if found["too_large"]:
        finding += f" No prompt has {' or '.join(map(str, found['too_large']))} candidates."
    # the first screen has one of them already; a name stands in one place of a page
    hero = _hero(found)
    panels = [
        Drawing(figure, "", _PANEL, numbers=False)
        for figure in figures
        if hero is None or hero.figure.name != figure.name
    ]
    blocks: list[Block] = [*([Panels(panels)] if panels else []), More("As a table", [table])]
    yield Section("curve", "Under more candidates", finding, blocks)


def _latents(found: Found) -> Iterator[Section]:
    listed = _deciding(found)
    if "latents" not in found:
        return
    if not listed:
        none = Prose(["No single latent changes a winner when it is set to 0: a null result."])
        yield Section("latents", "Which latents decide", "None by itself.", [none])
        return
    names = list(listed[0]["attributes"])
    rows = []
    for one in listed[:50]:
        cells = [
            Cell(number(one["weight"], 3, sign=True)),
            interval_cell(one["changed"], 1, scale=100, unit=" %"),
            *(_change_cell(name, one["attributes"][name]) for name in names),
        ]
        rows.append(TableRow(named(one["latent"], {}), cells))
    caption = (
        f"Each latent alone set to 0; 95 % over {found['prompts']} prompts. {len(rows)} of {len(listed)}."
    )
    head = ("Latent", "Weight", "Winner changes", *(f"{_words(name)}, change" for name in names))
    # without edits the chart is on the first screen already
    drawing = [_deciders(listed)] if found["edits"] else []
    finding = (
        f"{counted(len(listed), 'latent changes', 'latents change')} a winner when set to 0, each alone."
    )
    yield Section("latents", "Which latents decide", finding, [*drawing, Table(caption, head, rows)])


def _change_cell(name: str, change: Found) -> Cell:
    if name != _CHOSEN:
        return interval_cell(change, sign=True)
    tone = tone_of(change["low"], change["high"], more_is="good")
    shown: Tone = "plain" if tone == "unclear" else tone
    return interval_cell(change, 1, scale=100, sign=True, unit=POINTS, tone=shown)


def _examples(found: Found) -> Iterator[Section]:
    blocks: list[Block] = []
    for one in found["examples"]:
        answers = [
            Answer(title, one[key]["text"], _notes(one[key]))
            for title, key in (("wins as it is", "first"), ("wins with the edits", "second"))
        ]
        blocks.append(SideBySide(one["prompt"], "", answers))
    if blocks:
        finding = "Those where the edited rewards are furthest apart."
        yield Section("examples", "Prompts with another winner", finding, blocks)


def _notes(one: Found) -> list[str]:
    before, after = (fixed(one[when], 3, sign=True) for when in ("before", "after"))
    return [f"reward {before}", f"with the edits {after}"]


def _made(found: Found, command: str) -> Section:
    pairs = [("Edits", edits_in_words(found["edits"], {}) or "none")]
    if found["attributes"]:
        pairs.append(("Attributes", ", ".join(found["attributes"])))
    return made_section(pairs, found, command)
