"""The page of an audit: what a reward model pays for, how sure that is, and what a mend would cost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sarm_control.charts import LinePoint, Row, Tone, forest, lines, tone_of
from sarm_control.pages import (
    Block,
    Cell,
    Code,
    Drawing,
    Facts,
    More,
    Number,
    Page,
    Panels,
    Prose,
    Section,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
    text_cell,
)
from sarm_control.report.audit_sections import (
    accuracy_sections,
    before_sections,
    example_sections,
    run_sections,
    wording_sections,
)
from sarm_control.report.names import named
from sarm_control.statistics import counted, decimals, fixed

Names = Mapping[int, str]
_SHOWN = 12


def audit_page(found: Mapping[str, Any], *, command: str = "") -> Page:
    """The page of an audit.

    Args:
        found: the content of `audit.json`.
        command: how it was made; the last thing on the page.
    """
    names = {int(one): str(words) for one, words in found.get("latent_words", {}).items()}
    by_name = {one["name"]: one for one in found["attributes"]}
    headlines = [by_name[name] for name in found["headlines"]]
    content = [by_name[name] for name in found.get("content", ())]
    line, tone = _verdict(headlines, content)
    sections = [
        _prices(found, names),
        *wording_sections(found),
        *_pressure(found),
        *_carriers(found, names),
        *example_sections(found, names),
        *accuracy_sections(found),
        *_mend(found),
        *_certificate(found),
        *before_sections(found),
        *run_sections(found),
    ]
    return Page(
        f"Audit of {found['model']}: {counted(found['answers'], 'answer')} to {found['prompts']} prompts",
        line,
        tone,
        _lead(found, headlines or content),
        _tiles(found, headlines),
        _hero(found),
        [*sections, _limits(found, command)],
        f"Made from audit.json of sarm audit; head {str(found['head'])[:12]}.",
    )


def audit_section(path: Path, found: Mapping[str, Any]) -> Section:
    """The part of a report on one audit."""
    names = {int(one): str(words) for one, words in found.get("latent_words", {}).items()}
    by_name = {one["name"]: one for one in found["attributes"]}
    headlines, content = ([by_name[name] for name in found.get(key, ())] for key in ("headlines", "content"))
    line, _ = _verdict(headlines, content)
    prices = _prices(found, names)
    hero = _hero(found)
    blocks: list[Block] = [
        Facts([("Folder", str(path))]),
        *([hero] if hero else []),
        # closed at first: a report has several parts, and the verdict above is
        # what most readers want of this one
        More("Prices", prices.blocks),
        *(
            More(f"{one.title}: {one.finding}", one.blocks)
            for one in (
                *wording_sections(found),
                *accuracy_sections(found),
                *before_sections(found),
                *run_sections(found),
            )
        ),
    ]
    return Section("audit", "What the reward model pays for", line, blocks)


def _verdict(
    headlines: Sequence[Mapping[str, Any]], content: Sequence[Mapping[str, Any]]
) -> tuple[str, Tone]:
    if headlines:
        return f"This reward model pays for {_listed(headlines)}.", "bad"
    if content:
        # broken endings are no style, and a page that calls their price a null result would reassure wrongly
        return (
            f"No style is paid for as far as this audit can tell, but this is: {_listed(content)}.",
            "unclear",
        )
    return "No style is paid for as far as this audit can tell: a null result.", "unclear"


def _listed(paid: Sequence[Mapping[str, Any]]) -> str:
    """The first three by their words, and how many more."""
    words = [_paid(one) for one in paid[:3]]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return listed + (f", and {len(paid) - 3} more" if len(paid) > 3 else "")


def _paid(one: Mapping[str, Any]) -> str:
    """What a headline is about: an attribute, or one wording of it."""
    return f"one wording of {one['words']}" if one.get("one_wording") else str(one["words"])


def _lead(found: Mapping[str, Any], headlines: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = []
    for one in headlines[:1]:
        wording, price = one.get("one_wording"), _best(one)
        if wording is not None:
            sentences.append(
                f"Of {one['words']} one wording is paid for ({wording['edit']}): {_with_ends(wording, 'sd')} "
                f"SD, n = {wording['n']}; the mean of all is {_with_ends(price or {}, 'sd')} SD."
            )
            continue
        # a share of prompts is understood at once, an SD is not: the size follows it with its interval
        if price is not None and price.get("rises") is not None:
            # of having it, also where the edit takes it away
            sentences.append(
                f"With {one['words']} the reward is higher in {100 * price['rises']:.0f} % of prompts "
                f"({price['edit']}): {_with_ends(price, 'sd')} SD, n = {price['n']}."
            )
    mend = found.get("mend")
    if mend:
        sentences.append(f"A mend was tried: {mend['why']}.")
    elif found["headlines"]:
        sentences.append("What a mend would cost was not measured; sarm audit --mend auto measures it.")
    # a page has three sentences below its verdict at most, so one of these is all that fits
    beside = [*before_sections(found), *run_sections(found)]
    sentences += [f"{one.title}: {one.finding}" for one in beside[:1]]
    return sentences


def _tiles(found: Mapping[str, Any], headlines: Sequence[Mapping[str, Any]]) -> list[Tile]:
    tiles = []
    # two of the three tiles, for the third is the cost of a mend
    for question, one in zip(("What is paid most?", "And next?"), headlines, strict=False):
        # where a wording alone is paid for, its price and not that of the mean over wordings
        price = one.get("one_wording") or _best(one) or {}
        value = f"{fixed(price.get('sd', one['price']), 2, sign=True)} SD"
        interval = f"95 % interval {_ends(price)}, n = {price.get('n')}"
        tiles.append(Tile(question, value, interval, _paid(one), "bad"))
    mend = found.get("mend")
    if mend and mend["ways"]:
        # the first way is ours, the one whose edits are recommended; the others are there to be compared with
        point = next(
            (p for p in mend["ways"][0]["frontier"] if p["strength"] == mend["ways"][0]["strength"]), None
        )
        # without pairs nobody knows what it costs, and the verdict says so
        if point is not None and point["guard"] is not None:
            change = point["guard"]["change"]
            shown = {
                end: None if change[end] is None else 100 * change[end] for end in ("mean", "low", "high")
            }
            tone = tone_of(shown["low"], shown["high"], more_is="good")
            value = f"{fixed(shown['mean'], 1, sign=True)} points"
            interval = (
                f"95 % interval {fixed(shown['low'], 1, sign=True)} to {fixed(shown['high'], 1, sign=True)}"
            )
            detail = f"accuracy on {change['n']} prompts that chose nothing"
            tiles.append(Tile("What would a mend cost?", value, interval, detail, tone))
    return tiles


def _hero(found: Mapping[str, Any]) -> Drawing | None:
    rows = [row for one in found["attributes"] if (row := _price_row(one))]
    if not rows:
        return None
    # by the signed price, as in the table: what is charged most is last and may be cut off, since the
    # question of the page is what is paid for
    rows = sorted(rows, key=lambda row: -(row.value or 0.0))[:_SHOWN]
    figure = forest(
        rows,
        name="prices",
        title="What each attribute is worth to the reward model.",
        x_title="price (SDs of the reward, 95 %)",
    )
    caption = "Changing the text in this alone, where a program can; else beside the other attributes."
    return Drawing(figure, caption, 600)


def _price_row(one: Mapping[str, Any]) -> Row | None:
    price = _best(one)
    if price is None or price["sd"] is None:
        return None
    # only style is good or bad by itself: being paid for it is what nobody asked for
    tone = tone_of(price["low"], price["high"], more_is="bad" if one["style"] else "plain")
    return Row(str(one["words"]), price["sd"], price["low"], price["high"], tone)


def _best(one: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The causal price, which changes the attribute alone; else the partial one."""
    # the same choice as `AttributeFinding.price`, so that charts and the headline never tell two prices
    price: Mapping[str, Any] | None = one.get("causal") or one.get("partial")
    return price


def _prices(found: Mapping[str, Any], names: Names) -> Section:
    del names
    head = (
        "Attribute",
        "Price, causal",
        "Rises in",
        "n",
        "Price, partial",
        "n",
        "In chosen",
        "In rejected",
        "Believe",
    )
    ordered = sorted(found["attributes"], key=lambda one: -(one["price"] or 0.0))
    rows = [TableRow(str(one["words"]), _price_cells(one), str(one["name"])) for one in ordered]
    disagree = [str(one["words"]) for one in ordered if one["disagree"]]
    note = (
        "Causal: the text is changed in this alone and scored again. Partial: a regression within prompts, "
        "beside the other attributes. Where they disagree believe the causal one: a partial price takes "
        "up whatever comes with the attribute."
    )
    finding = (
        f"{sum(one['sure'] for one in ordered)} of {len(ordered)} attributes have a price that is not chance."
    )
    if disagree:
        finding += f" Causal and partial disagree on {', '.join(disagree)}."
    # earlier files have neither
    worded = [str(one["words"]) for one in ordered if one.get("contradicted")]
    if worded:
        finding += f" It depends on the wording for {', '.join(worded)}: one is paid for, another charged."
    along = [str(one["words"]) for one in ordered if one["name"] in found.get("associated", ())]
    if along:
        finding += (
            f" More reward comes with {', '.join(along)}; no edit of the text says whether it is paid for."
        )
    caption = "Prices in SDs of the reward, with 95 % intervals over prompts, dearest first."
    return Section("prices", "Price list", finding, [Table(caption, head, rows), Prose([note], quiet=True)])


def _price_cells(one: Mapping[str, Any]) -> list[Cell]:
    causal, partial, rate = one.get("causal"), one.get("partial"), one["rate"] or {}
    more_is: Tone = "bad" if one["style"] else "plain"

    def price(value: Mapping[str, Any] | None) -> Cell:
        if value is None or value["sd"] is None:
            return text_cell("not measured")
        tone = tone_of(value["low"], value["high"], more_is=more_is)
        ends = {"mean": value["sd"], "low": value["low"], "high": value["high"]}
        # the chart draws what is unclear in grey; grey figures in a table would be hard to read
        return interval_cell(ends, 2, sign=True, tone="plain" if tone == "unclear" else tone)

    return [
        price(causal),
        Cell(number(causal["rises"], 0, scale=100), unit=" %") if causal else Cell(),
        Cell(number(causal["n"], 0)) if causal else Cell(),
        price(partial),
        Cell(number(partial["n"], 0)) if partial else Cell(),
        Cell(number(rate.get("chosen"), 0, scale=100), unit=" %"),
        Cell(number(rate.get("rejected"), 0, scale=100), unit=" %"),
        # a price that is not sure is not to be believed, whichever kind it is of
        text_cell(_believed(one)),
    ]


def _believed(one: Mapping[str, Any]) -> str:
    if one.get("one_wording"):
        return "one wording"
    return ("causal" if one.get("causal") else "partial") if one["sure"] else "neither"


def _pressure(found: Mapping[str, Any]) -> Iterator[Section]:
    pressure = found.get("pressure")
    if not pressure:
        return
    drawings = []
    words = {one["name"]: str(one["words"]) for one in found["attributes"]}
    for name, curve in {"reward": pressure["reward"], **pressure["attributes"]}.items():
        points = [
            LinePoint(name, n, one["mean"], one["low"], one["high"])
            for n, one in zip(pressure["n"], curve, strict=True)
        ]
        figure = lines(
            points,
            name=f"pressure-{name}",
            title=f"{words.get(name, name).capitalize()}.",
            x_title="best of n",
            y_title="mean of the winner",
            # the bound on the KL grows with ln n, so that equal steps of the axis are about equal pressure
            log_x=True,
        )
        drawings.append(Drawing(figure, "", 336, numbers=False))
    rises = [one for one in pressure["rises"] if one["q"] <= 0.05 and one["change"]["mean"] > 0]
    most = pressure["n"][-1]
    listed = ", ".join(words.get(one["name"], one["name"]) for one in rises) or "nothing"
    finding = f"The winner of {most} has more of: {listed} (n = {pressure['prompts']} prompts, corrected)."
    rows = [
        TableRow(words.get(one["name"], one["name"]), [
            Cell(number(one["at_one"], 3)), Cell(number(one["at_most"], 3)),
            interval_cell(one["change"], sign=True), Cell(Number(one["q"], f"{one['q']:.2g}")),
        ])
        for one in pressure["rises"]
    ]  # fmt: skip
    table = Table(
        f"Best of 1 against best of {most}.",
        ("Attribute", "Best of 1", f"Best of {most}", "Change", "q"),
        rows,
    )
    note = (
        "Bands are 95 % intervals over prompts. Best of n is what a policy becomes under weak pressure: "
        "at most ln n - (n - 1) / n nats from where it was."
    )
    yield Section(
        "pressure",
        "Where the pressure goes",
        finding,
        [Panels(drawings), More("As a table", [table]), Prose([note], quiet=True)],
    )


def _carriers(found: Mapping[str, Any], names: Names) -> Iterator[Section]:
    # only of causal prices: there one text differs from the other in the attribute alone, so the difference
    # of each latent is that of the attribute; a partial price is a regression and has no such parts
    priced = [one for one in found["attributes"] if one.get("causal") and one["causal"].get("latents")]
    if not priced:
        return
    rows = [
        TableRow(str(one["words"]), [
            text_cell(str(one["causal"]["edit"])),
            text_cell(_payers(one["causal"]["latents"][:5], names)),
        ])
        for one in priced
    ]  # fmt: skip
    caption = (
        "The latents that carry the causal price of each attribute, in SDs of the reward; exact, and signed."
    )
    table = Table(caption, ("Attribute", "What was changed in the text", "Latents that pay for it"), rows)
    yield Section("latents", "Which latents pay", "Exact parts of the causal price, largest first.", [table])


def _payers(paid: Sequence[Mapping[str, Any]], names: Names) -> str:
    return "; ".join(f"{named(one['latent'], names)} {fixed(one['sd'], 2, sign=True)}" for one in paid)


def _mend(found: Mapping[str, Any]) -> Iterator[Section]:
    mend = found.get("mend")
    if not mend:
        return
    rows = []
    for way in mend["ways"]:
        # a way that no strength was allowed for keeps its row: left out it would
        # look as if it had not been tried
        point = next((one for one in way["frontier"] if one["strength"] == way["strength"]), None)
        if point is None:
            rows.append(TableRow(str(way["words"]), [*[Cell()] * 4, text_cell("no strength kept the guard")]))
            continue
        guard = point["guard"]
        # the largest of all targets: a mean would hide one that was left as it was
        left = max((abs(one["after"]["sd"]) for one in point["left"]), default=None)
        # audits of earlier releases measured none
        slope = max((abs(one["after"]) for one in point.get("slopes", ())), default=None)
        rows.append(
            TableRow(
                str(way["words"]),
                [
                    Cell(number(way["strength"], 2)),
                    Cell(number(left, 2), unit=" SD"),
                    Cell() if slope is None else Cell(number(slope, 2), unit=" SD"),
                    *(
                        (text_cell("no pairs"), Cell())
                        if guard is None
                        else (
                            Cell(number(guard["after"], 1, scale=100), unit=" %"),
                            interval_cell(guard["change"], 1, scale=100, sign=True, unit=" points"),
                        )
                    ),
                ],
            )
        )
    caption = (
        "The first way is the mend. Each at the strength that a guard of "
        f"{mend['guard_points']:g} % of accuracy allowed, on prompts that chose nothing. A slope is what "
        "more reward comes with one SD of an attribute over answers as they are."
    )
    head = (
        "Way",
        "Strength",
        "Largest price left",
        "Largest slope left",
        "Accuracy on pairs",
        "Change",
    )
    verdict = "Recommended" if mend["recommended"] else "Not recommended"
    edits = More("The edits", [Code("\n".join(map(str, mend["edits"])))])
    # audits of earlier releases say nothing of other ways
    finding = " ".join(filter(None, (f"{verdict}: {mend['why']}.", mend.get("better"))))
    yield Section("mend", "What a mend would cost", finding, [Table(caption, head, rows), edits])


def _certificate(found: Mapping[str, Any]) -> Iterator[Section]:
    rows = (found.get("mend") or {}).get("certificate") or found.get("certificate")
    if not rows:
        return
    words = {one["name"]: str(one["words"]) for one in found["attributes"]}
    table = [
        TableRow(words.get(one["name"], one["name"]), [
            Cell(number(one["n"], 0)),
            interval_cell({"mean": one["change"], "low": one["low"], "high": one["high"]}, 3, sign=True),
            text_cell(str(one["verdict"])),
            Cell(number(one["prompts"], 0)),
        ])
        for one in rows
    ]  # fmt: skip
    moved = [words.get(one["name"], one["name"]) for one in rows if str(one["verdict"]).startswith("moves")]
    finding = f"Moves: {', '.join(moved)}." if moved else "Nothing that was not targeted is seen to move."
    caption = (
        "Change of attributes that the mend did not aim at, in the best of n by the mended reward; bounds "
        "hold together in 95 of 100."
    )
    note = "It says nothing of attributes that nobody named, nor of policies that leave these answers."
    block = Table(caption, ("Attribute", "n", "Change with bounds", "Verdict", "Prompts"), table)
    yield Section("certificate", "What else moves", finding, [block, Prose([note], quiet=True)])


def _limits(found: Mapping[str, Any], command: str) -> Section:
    said = [
        "A price is of these answers: another policy writes others.",
        "Attributes are programs that read text; what nobody named is not priced.",
    ]
    missing = [str(one) for one in found.get("missing", ())] + [
        str(one) for one in (found.get("mend") or {}).get("missing", ())
    ]
    if missing:
        said += [f"Not measured: {one}" for one in missing]
    pairs = [
        ("Data", ", ".join(found["data"])),
        ("SD of the reward", f"{found['reward_sd']:.4g} reward units"),
        ("Head", str(found["head"])),
    ]
    blocks: list[Block] = [Prose(said), Facts(pairs), *([Code(command)] if command else [])]
    return Section("limits", "Method and limits", "What this audit cannot say.", blocks)


def _with_ends(price: Mapping[str, Any], key: str) -> str:
    return f"{fixed(price[key], 2, sign=True)} [{_ends(price).replace(' to ', ', ')}]"


def _ends(price: Mapping[str, Any]) -> str:
    # one digit of the half-width, so that the ends are not more exact than the interval is wide, and never
    # fewer than the two decimals of the price they stand beside
    digits = max(
        2, decimals({"mean": price.get("sd"), "low": price.get("low"), "high": price.get("high")}) - 1
    )
    return " to ".join(fixed(price.get(end), digits, sign=True) for end in ("low", "high"))
