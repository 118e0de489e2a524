"""Parts of an audit's page: wordings, examples, accuracy on pairs, an earlier model, a training run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sarm_control.charts import Pair, Row, Tone, before_after, forest, tone_of
from sarm_control.pages import (
    Block,
    Cell,
    Drawing,
    More,
    Number,
    Prose,
    Section,
    Table,
    TableRow,
    TokenLine,
    TokenValue,
    interval_cell,
    number,
    text_cell,
)
from sarm_control.report.names import named
from sarm_control.statistics import bracket, counted, decimals, fixed

Found = Mapping[str, Any]
_CHANCE = 0.5
_SURE = 0.05


def wording_sections(found: Found) -> Iterator[Section]:
    """What each wording of an edit is worth, and whether they differ; nothing without wordings."""
    # an audit of an earlier version tried one wording and has no such list
    worded = [one for one in found["attributes"] if (one.get("causal") or {}).get("wordings")]
    if not worded:
        return
    differ = [one for one in worded if _differ(one["causal"])]
    listed = "; ".join(_wording_range(one) for one in differ)
    finding = (
        f"The wording matters for {counted(len(differ), 'attribute')} of {len(worded)}: {listed}."
        if differ
        else f"Of {counted(len(worded), 'attribute')} no wording is seen to be worth more than another."
    )
    rows = [
        TableRow(f"{one['words']}: {wording['text']}", [
            interval_cell(
                {"mean": wording["sd"], "low": wording["low"], "high": wording["high"]}, 2, sign=True,
            ),
            Cell() if wording["q"] is None else Cell(Number(wording["q"], f"{wording['q']:.2g}")),
            Cell(number(wording["n"], 0)),
        ])
        for one in worded
        for wording in sorted(one["causal"]["wordings"], key=lambda wording: -(wording["sd"] or 0.0))
    ]  # fmt: skip
    note = (
        "The causal price of an attribute is that of the mean over its wordings. Intervals of the wordings "
        "of one hold together in 95 of 100; q is corrected over all edits and all wordings. Whether wordings "
        "differ is Friedman's test within sets of prompts that have all of them, corrected over attributes."
    )
    table = Table("Prices of single wordings in SDs of the reward.", ("Wording", "Price", "q", "n"), rows)
    yield Section("wordings", "Wordings", finding, [More("Each wording", [table]), Prose([note], quiet=True)])


def _differ(causal: Found) -> bool:
    q = (causal.get("wordings_differ") or {}).get("q")
    return q is not None and q <= _SURE


def _wording_range(one: Found) -> str:
    """`an offer of more help at the end +0.02 to +1.31 SD, most for "..." behind the answer`."""
    ordered = sorted(one["causal"]["wordings"], key=lambda wording: wording["sd"] or 0.0)
    least, most = ordered[0], ordered[-1]
    prices = f"{fixed(least['sd'], 2, sign=True)} to {fixed(most['sd'], 2, sign=True)} SD"
    return f"{one['words']} {prices}, most for {most['edit']}"


def example_sections(found: Found, names: Mapping[int, str]) -> Iterator[Section]:
    """Answers with and without an attribute, the latents that carry it, and the reward after every token."""
    examples = found.get("examples")
    if not examples:
        return
    attributes = {one["name"]: one for one in found["attributes"]}
    blocks: list[Block] = []
    for place, one in enumerate(examples):
        attribute = attributes[one["attribute"]]
        drawn: list[Block] = _example(one, str(attribute["words"]), _carriers(attribute, names))
        # the first is read by everybody, the others by who wants them
        title = f"{str(attribute['words']).capitalize()}: {fixed(one['sd'], 2, sign=True)} SD"
        blocks += drawn if not place else [More(title, drawn)]
    note = (
        f"{str(examples[0]['label']).capitalize()}. Bars are drawn from 0, on one scale for both answers; "
        "the number below a token is the reward after it, in reward units. An example is one prompt: n and "
        "interval of each price stand in the price list."
    )
    yield Section(
        "examples",
        "Examples, token by token",
        f"An answer without each unwanted attribute, and the same with it; {examples[0]['label']}.",
        [*blocks, Prose([note], quiet=True)],
    )


def _carriers(attribute: Found, names: Mapping[int, str]) -> str:
    parts = [
        f"{named(one['latent'], names)} {fixed(one['sd'], 2, sign=True)} SD" for one in attribute["latents"]
    ]
    if not parts:
        return "No latent is known to carry it."
    return f"Latents that carry it most, over all its prompts: {'; '.join(parts)}."


def _example(one: Found, words: str, carriers: str) -> list[Block]:
    values = [token["reward"] for key in ("tokens_without", "tokens_having") for token in one[key]]
    # over both answers: with a scale for each, equal bars would stand for unequal rewards
    largest = max((abs(value) for value in values), default=0.0)
    # one number of decimals for both lines, which are read against each other
    digits = decimals({"mean": largest, "low": None, "high": None})
    lines: list[Block] = []
    for key, title in (("tokens_without", "Without"), ("tokens_having", "With")):
        tokens = [
            TokenValue(
                str(token["token"]), token["reward"], fixed(token["reward"], digits), bool(token["trained"])
            )
            for token in one[key]
        ]
        # the position that was trained: its reward is the answer's
        last = next((token.shown for token in tokens if token.strong), None)
        said = "" if last is None else f"Reward {last}."
        lines.append(TokenLine(f"{title} {words}.", said, tokens, largest))
    # of having it: some edits take it away
    than = "lower" if one["sd"] < 0 else "higher"
    changed = f"Changed: {one['edit']}. With {words} the reward is {fixed(abs(one['sd']), 2)} SD {than}."
    return [Prose([f"Prompt: {one['prompt']}", f"{changed} {carriers}"]), *lines]


def accuracy_sections(found: Found) -> Iterator[Section]:
    """Pairs preferred rightly: all, by kind of prompt, by style; what length decides; refusals."""
    # an audit of an earlier version, which did not look at pairs
    if "accuracy" not in found:
        return
    accuracy = found["accuracy"]
    title = "Accuracy on pairs"
    if accuracy is None:
        why = "Not measured: no row has chosen and rejected answers; pairs would tell."
        yield Section("accuracy", title, why, [])
        return
    after = accuracy.get("after_mend")
    shown = list(_accuracy_rows(accuracy))
    yield Section(
        "accuracy",
        title,
        _accuracy_finding(accuracy, after),
        [
            _accuracy_figure(shown, accuracy, after),
            _accuracy_table(shown, accuracy, after),
            Prose(_length_said(accuracy, after)),
            Prose([_accuracy_note(accuracy, after)], quiet=True),
        ],
    )


def _accuracy_rows(accuracy: Found) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What each row is called, and where in the object its interval stands."""
    yield "all pairs", ("pairs",)
    for kind in accuracy["kinds"]:
        yield f"{accuracy['column']}: {kind}", ("kinds", kind)
    for style in accuracy["styles"]:
        yield f"style: {style}", ("styles", style)


def _at(accuracy: Found, path: Sequence[str]) -> Found:
    for key in path:
        accuracy = accuracy[key]
    return accuracy


def _accuracy_finding(accuracy: Found, after: Found | None) -> str:
    pairs = accuracy["pairs"]
    said = f"{_share(pairs)} of pairs are preferred rightly (n = {pairs['n']} prompts)"
    # a share near one half looks like a finding, and is what a coin would reach
    if pairs["low"] is not None and pairs["low"] <= _CHANCE <= pairs["high"]:
        said += ", which chance, 50 %, would do too"
    if after is not None:
        said += f"; with the mend {_share(after['pairs'])}"
    return f"{said}."


def _share(interval: Found, most: int = 1) -> str:
    """`48.5 % [44.5, 52.5]`, with as many decimals as the interval justifies and no more than `most`."""
    if interval["mean"] is None:
        return "no number"
    scaled = {end: None if interval[end] is None else 100 * interval[end] for end in ("mean", "low", "high")}
    # with very many prompts the interval would justify more digits than a reader can use
    digits = min(most, decimals(scaled))
    return f"{fixed(scaled['mean'], digits)} % {bracket(scaled, digits)}".strip()


def _accuracy_figure(
    shown: Sequence[tuple[str, tuple[str, ...]]], now: Found, after: Found | None
) -> Drawing:
    # no point stands for what was not measured; the table below keeps such rows and says so
    measured = [(label, path) for label, path in shown if _at(now, path)["mean"] is not None]
    if after is None:
        rows = [_accuracy_row(label, _at(now, path)) for label, path in measured]
        figure = forest(
            rows,
            name="accuracy",
            title="How often the chosen answer has the higher reward.",
            x_title="pairs preferred rightly (%, 95 %; chance is 50 %)",
            zero=False,
        )
        return Drawing(figure, "Teal: better than chance. Vermilion: worse.", 600, numbers=False)
    pairs = []
    for label, path in measured:
        first, last = (100 * _at(one, path)["mean"] for one in (now, after))
        pairs.append(Pair(label, first, last, f"{fixed(first, 0)} % to {fixed(last, 0)} %"))
    # both shares are of the same pairs, so two intervals of their own would say nothing of the change
    figure = before_after(
        pairs,
        name="accuracy",
        title="How often the chosen answer has the higher reward, before and after the mend.",
        x_title="pairs preferred rightly (%; chance is 50 %)",
    )
    return Drawing(
        figure, "Hollow: the reward as it is. Filled: with the edits of the mend.", 600, numbers=False
    )


def _accuracy_row(label: str, interval: Found) -> Row:
    mean, low, high = (
        None if interval[end] is None else 100 * interval[end] for end in ("mean", "low", "high")
    )
    # from chance: an interval that holds 50 % says nothing of the model
    beyond = [None if end is None else end - 100 * _CHANCE for end in (low, high)]
    return Row(label, mean, low, high, tone_of(*beyond, more_is="good"), shown=_share(interval, 0))


def _accuracy_table(
    shown: Sequence[tuple[str, tuple[str, ...]]], accuracy: Found, after: Found | None
) -> Table:
    measures = [*shown, ("the longer of two answers is preferred", ("longer_preferred",))]
    if accuracy["refused_when_it_should_answer"] is not None:
        measures.append(
            ("a refusal is preferred to an answer that was chosen", ("refused_when_it_should_answer",))
        )
    rows = []
    for label, path in measures:
        cells = [_percent_cell(_at(one, path)) for one in (accuracy, after) if one is not None]
        rows.append(TableRow(label, [*cells, Cell(number(_at(accuracy, path)["n"], 0))]))
    # a correlation is no share: the row has no per cent, and neither an interval nor an n of its own
    correlation = [Cell(number(one["length_correlation"], 2, sign=True)) for one in (accuracy, after) if one]
    rows.append(TableRow("correlation of reward and log2 length, within prompts", [*correlation, Cell()]))
    head = ("Measure", "Now", *(("With the mend",) if after is not None else ()), "n, prompts")
    return Table("Shares of pairs with 95 % intervals over prompts.", head, rows)


def _percent_cell(interval: Found | None) -> Cell:
    if interval is None or interval["mean"] is None:
        return text_cell("not measured")
    return interval_cell(interval, 1, scale=100, unit=" %")


def _length_said(accuracy: Found, after: Found | None) -> list[str]:
    """What length decides, and refusals, in sentences."""
    longer = accuracy["longer_preferred"]
    said = [_longer_said(longer)] if longer["mean"] is not None else []
    correlation = accuracy["length_correlation"]
    if correlation is not None:
        moved = None if after is None else after["length_correlation"]
        then = "" if moved is None else f", with the mend {fixed(moved, 2, sign=True)}"
        said.append(
            f"Reward and length correlate by {fixed(correlation, 2, sign=True)} within prompts{then}; "
            "it has no interval."
        )
    refused = accuracy["refused_when_it_should_answer"]
    if refused is None:
        said.append(
            "Whether refusals win over answers was not measured: no rejected answer refuses what the chosen "
            "one answers."
        )
    else:
        mended = None if after is None else after["refused_when_it_should_answer"]
        then = "" if mended is None else f", with the mend in {_share(mended)}"
        said.append(
            f"Where the chosen answer answers and a rejected one refuses, the refusal is preferred in "
            f"{_share(refused)} of pairs{then} (n = {refused['n']} prompts)."
        )
    return [" ".join(said)]


def _longer_said(longer: Found) -> str:
    # only an interval that holds one half acquits length; without one the share is told and nothing concluded
    if longer["low"] is not None and longer["low"] <= _CHANCE <= longer["high"]:
        return (
            f"Length alone does not decide: the longer of two answers is preferred in {_share(longer)} of "
            f"pairs (n = {longer['n']} prompts)."
        )
    return f"The longer of two answers is preferred in {_share(longer)} of pairs (n = {longer['n']} prompts)."


def _accuracy_note(accuracy: Found, after: Found | None) -> str:
    said = "A prompt counts once, however many pairs it has."
    if accuracy["column"] is None:
        said += " Rows have no column that says their kind, such as domain or subset."
    if not accuracy["styles"]:
        said += " By style (easy, normal, hard) only data in the form of RM-Bench can be read."
    if after is not None:
        said += (
            " With the mend: on all prompts, those that chose the edits too; the table of ways to mend has "
            "the accuracy on prompts that chose nothing."
        )
    return said


def before_sections(found: Found) -> Iterator[Section]:
    """Which prices changed since an earlier reward model; nothing where none was given."""
    before = found.get("before")
    if not before:
        return
    title = f"Against {before['model']}"
    changes = before["changes"] or []
    if not changes:
        yield Section(
            "before", title, "No attribute has a price in both models: nothing can be compared.", []
        )
        return
    words = {one["name"]: str(one["words"]) for one in found["attributes"]}
    styles = {one["name"] for one in found["attributes"] if one["style"]}
    # the heading counts only what is more than chance: of many prices some always differ
    sure = [one for one in changes if one["sure"]]
    listed = ", ".join(f"{words[one['name']]} {fixed(one['change'], 2, sign=True)} SD" for one in sure)
    finding = (
        f"{counted(len(sure), 'price')} of {len(changes)} changed by more than chance: {listed}."
        if sure
        else f"No price of {len(changes)} changed by more than chance: a null result."
    )
    figure = forest(
        [_change_row(one, words, styles) for one in changes],
        name="price-changes",
        title=f"How prices changed since {before['model']}.",
        x_title="change of the price (SDs of each reward, 95 %)",
    )
    rows = [
        TableRow(words[one["name"]], [
            text_cell(str(one["kind"])),
            Cell(number(one["old"], 2, sign=True)),
            Cell(number(one["new"], 2, sign=True)),
            interval_cell(
                {"mean": one["change"], "low": one["low"], "high": one["high"]}, 2, sign=True,
                tone=_change_tone(one, styles),
            ),
            Cell() if one["q"] is None else Cell(Number(one["q"], f"{one['q']:.2g}")),
            Cell(number(one["n"], 0)),
        ])
        for one in changes
    ]  # fmt: skip
    head = ("Attribute", "Price", "Before", "Now", "Change", "q", "n, prompts")
    note = (
        "Both models scored the same answers, and each price is in SDs of its own reward. Changes are paired "
        "by prompt: the change of a causal price is a median, so it need not be the difference of both. "
        "q is corrected over all changes of one kind."
    )
    blocks: list[Block] = [Drawing(figure, "", 600, numbers=False), Table("Prices in SDs.", head, rows)]
    yield Section("before", title, finding, [*blocks, Prose([note], quiet=True)])


def _change_row(one: Found, words: Mapping[str, str], styles: set[str]) -> Row:
    return Row(words[one["name"]], one["change"], one["low"], one["high"], _change_tone(one, styles))


def _change_tone(one: Found, styles: set[str]) -> Tone:
    if not one["sure"]:
        return "unclear"
    # being paid more for style is what nobody asked for; of other attributes a rise has no meaning by itself
    return tone_of(one["low"], one["high"], more_is="bad" if one["name"] in styles else "plain")


def run_sections(found: Found) -> Iterator[Section]:
    """What a training run did to each attribute, and what a certificate had said; nothing without a run."""
    run = found.get("run")
    if not run:
        return
    title = f"What the run {run['run']} did"
    moves = run["attributes"]
    if not moves:
        # the part stays, with the reason: a reader who gave a run should not have to wonder where it went
        why = " ".join(str(one) for one in run.get("missing", ())) or "its samples were too few"
        yield Section("run", title, f"Not measured: {why}", [])
        return
    words = {one["name"]: str(one["words"]) for one in found["attributes"]}
    # a column of `said nothing` in every row would look like a result
    certified = any(one["certified"] for one in moves)
    rows = [
        TableRow(words.get(one["name"], one["name"]), [
            Cell(number(one["before"], 3)),
            Cell(number(one["after"], 3)),
            interval_cell({"mean": one["change"], "low": one["low"], "high": one["high"]}, 3, sign=True),
            text_cell(str(one["verdict"])),
            *([text_cell(_kept(one))] if certified else []),
        ])
        for one in moves
    ]  # fmt: skip
    head = ("Attribute", "First samples", "Last samples", "Change with bounds", "Verdict")
    first, last = moves[0]["first"], moves[0]["last"]
    caption = (
        f"{first} samples of the first quarter of the steps against {last} of the last; bounds hold together "
        "in 95 of 100. Shares of answers; of a size, such as length, the change is a share of what it was."
    )
    figure = forest(
        [_move_row(one, words) for one in moves],
        name="run-moves",
        title="What the run moved.",
        x_title="change, last samples against first (bounds together, 95 %)",
    )
    note = (
        "Without a certificate made before the run (--certified) nothing says what should have been still."
        if not certified
        else "A certificate is about best-of-n on answers of the policy before; a run may go further."
    )
    table = Table(caption, (*head, *(("The certificate",) if certified else ())), rows)
    yield Section(
        "run",
        title,
        _run_finding(moves, words),
        [Drawing(figure, "", 600, numbers=False), table, Prose([note], quiet=True)],
    )


def _move_row(one: Found, words: Mapping[str, str]) -> Row:
    # a broken promise is bad in either direction, any other move is neither good nor bad to this page
    tone: Tone = "bad" if one["broken"] else tone_of(one["low"], one["high"], more_is="plain")
    return Row(words.get(one["name"], one["name"]), one["change"], one["low"], one["high"], tone)


def _kept(one: Found) -> str:
    if one["certified"] is None:
        return "said nothing"
    return f"{one['certified']}: broken" if one["broken"] else str(one["certified"])


def _run_finding(moves: Sequence[Found], words: Mapping[str, str]) -> str:
    moved = [one for one in moves if str(one["verdict"]).startswith("moves")]
    broken = [words.get(one["name"], one["name"]) for one in moves if one["broken"]]
    # a verdict is `moves up` or `moves down`
    listed = ", ".join(f"{words.get(one['name'], one['name'])} {str(one['verdict'])[6:]}" for one in moved)
    said = (
        f"Moved: {listed}" if moved else "No attribute is seen to move, which is a null result and no proof"
    )
    said += f" ({moves[0]['first']} samples against {moves[0]['last']})."
    if broken:
        said += f" The certificate did not hold for {', '.join(broken)}."
    # said only where something was certified as still: without that nothing has been tested
    elif any(one["certified"] == "still" for one in moves):
        said += " Nothing that was certified as still is seen to move."
    return said
