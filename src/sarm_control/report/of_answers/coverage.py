"""The page of `sarm latents`: which latents fire in the answers that were kept."""

from collections.abc import Iterator

from sarm_control.charts import Bin, Tone, forest, histogram
from sarm_control.pages import (
    Block,
    Cell,
    Drawing,
    Page,
    Prose,
    Section,
    Table,
    TableRow,
    Tile,
    interval_cell,
    number,
)
from sarm_control.report.of_answers.words import Found, made_section, share_row, tile
from sarm_control.statistics import counted, short

_HERO = 600
# of the bins of `AnswerCoverage.as_json`, in their order
_LABELS = ("never", "to 0.1 %", "to 1 %", "to 10 %", "to 50 %", "to 98 %", "nearly always")


def coverage_page(found: Found, *, command: str = "") -> Page:
    """The page of a latents folder or a human buffer.

    Args:
        found: what `sarm latents --json` writes.
        command: how it was made.
    """
    seen = found["seen"]
    line, tone = _verdict(found)
    what = "Human buffer" if _is_buffer(found) else f"Latents folder {found['folder']}"
    size = f"{counted(seen['answers'], 'answer')} to {counted(seen['prompts'], 'prompt')}"
    return Page(
        f"{what}: {size}, scored by {found['model']}",
        line,
        tone,
        list(found.get("notes", ())),
        _tiles(found),
        _hero(found),
        [*_listed(found), _made(found, command)],
        "Made from the summary of sarm latents.",
    )


def _is_buffer(found: Found) -> bool:
    return "coverage" in found


def _verdict(found: Found) -> tuple[str, Tone]:
    seen = found["seen"]
    if _is_buffer(found):
        chosen, firing = found["coverage"]["chosen"], found["coverage"]["chosen_firing"]
        # the human-KL term asks how usual a latent's values are in demonstrations: of one that never fires
        # there it would learn that any firing at all is unlike them
        if firing < chosen:
            return (
                f"{counted(chosen - firing, 'chosen latent never fires', 'chosen latents never fire')}: "
                "the buffer cannot say what is usual for them."
            ), "bad"
        return f"All {counted(chosen, 'chosen latent')} fire in the demonstrations.", "good"
    fires = seen["latents"] - seen["never"]
    if seen["never"]:
        never = counted(seen["never"], "never does", "never do")
        rest = f"{never}, and nothing can be found or controlled by those here"
        return f"{fires:,} of {seen['latents']:,} latents fire in these answers; {rest}.", "plain"
    return f"All {counted(fires, 'latent')} fire in these answers.", "plain"


def _tiles(found: Found) -> list[Tile]:
    seen = found["seen"]
    answers = f"n = {counted(seen['answers'], 'answer')}: counted, not estimated"
    share = f"{seen['latents'] - seen['never']:,} of {seen['latents']:,}"
    n = f"n = {counted(seen['prompts'], 'prompt')}"
    tiles = [
        Tile("How many latents ever fire?", share, answers, _nearly_always(seen)),
        tile("How many fire in one answer?", seen["firing"], n),
    ]
    if seen["listed"]:
        first = seen["listed"][0]
        detail = f"share of answers, {n}; it makes {100 * first['spread']:.0f} % of the reward's spread"
        question = f"How often does latent {first['latent']} fire?"
        tiles.append(tile(question, first["rate"], detail, scale=100, unit=" %"))
    return tiles


def _nearly_always(seen: Found) -> str:
    if not seen["always"]:
        return "none fires in 98 % of the answers or more"
    return f"{seen['always']:,} of them in 98 % of the answers or more, which tells answers hardly apart"


def _hero(found: Found) -> Drawing:
    seen = found["seen"]
    bins = [Bin(label, one["latents"]) for label, one in zip(_LABELS, seen["rates"], strict=True)]
    figure = histogram(
        bins,
        name="rates",
        title="How often latents fire.",
        x_title="share of answers in which a latent fires (each column from the one before)",
        y_title="latents",
    )
    caption = f"A latent fires where z is above 0; {counted(seen['answers'], 'answer')}."
    return Drawing(figure, caption, _HERO)


def _listed(found: Found) -> Iterator[Section]:
    listed = found["seen"]["listed"]
    if not listed:
        return
    chart, rows = [], []
    for one in listed:
        label = f"latent {one['latent']}"
        chart.append(share_row(label, one["rate"]))
        cells = [
            Cell(number(one["weight"], 3, sign=True)),
            interval_cell(one["rate"], 1, scale=100, unit=" %"),
            Cell(number(one["mean"], 3)),
            Cell(number(one["spread"], 1, scale=100), unit=" %"),
        ]
        rows.append(TableRow(label, cells))
    prompts = found["seen"]["prompts"]
    figure = forest(
        chart,
        name="firing",
        title="How often the latents fire that the reward varies by most.",
        x_title="share of answers in which it fires (%, 95 %)",
    )
    caption = (
        f"The {len(listed)} latents of the largest part of the reward's spread, w^2 var z over its sum; "
        f"rates with 95 % intervals over {prompts} prompts."
    )
    head = ("Latent", "Weight", "Fires in", "Mean z", "Part of the spread")
    part = sum(one["spread"] for one in listed)
    blocks: list[Block] = [
        Drawing(figure, "In the order of their part of the spread.", 720, numbers=False),
        Table(caption, head, rows),
        Prose(["What two latents have in common is in no latent's part."], quiet=True),
    ]
    finding = f"{len(listed)} latents make {100 * part:.0f} % of it."
    yield Section("listed", "What the reward varies by", finding, blocks)


def _made(found: Found, command: str) -> Section:
    pairs: list[tuple[str, str]] = []
    if _is_buffer(found):
        covered = found["coverage"]
        pairs.append(("Chosen latents", f"{covered['chosen']}, of which {covered['chosen_firing']} fire"))
        pairs.append(("All latents", f"{covered['latents']:,}, of which {covered['firing']:,} fire"))
        pairs.append(("Kept apart from", ", ".join(found["disjoint_from"]) or "nothing that was named"))
    else:
        pairs.append(("Rows", f"{found['rows']:,} in {counted(found['shards'], 'shard')}"))
        size = f"{found['bytes_per_answer']:.0f} bytes, of {short(found['dense_bytes_per_answer'])} dense"
        pairs.append(("An answer on disk", size))
        pairs.append(("Trunk states", "kept" if found["states"] else "not kept"))
    return made_section(pairs, found, command)
