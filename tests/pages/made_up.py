"""A page with every kind of block, whose texts are hostile."""

from sarm_control.charts import (
    Bin,
    LinePoint,
    Pair,
    Place,
    Row,
    Spot,
    Step,
    bars,
    before_after,
    forest,
    histogram,
    lines,
    plane,
    spots,
    waterfall,
)
from sarm_control.charts.figure import Figure
from sarm_control.pages import (
    Answer,
    Cell,
    Code,
    Drawing,
    Facts,
    Light,
    Lights,
    More,
    Number,
    Page,
    Panels,
    Payment,
    Prose,
    Section,
    SideBySide,
    Table,
    TableRow,
    Tile,
    TokenLine,
    TokenValue,
    interval_cell,
    text_cell,
)

EVIL = "<script>alert('x')</script> & \"quotes\" '] + alert(1) <img src=http://evil.example>"
ROWS = [
    Row("gold reward", -0.1, -0.2, 0.05, "unclear"),
    Row(EVIL, 0.3, 0.2, 0.4, "bad", strong=True),
    Row("fluency", 0.1, 0.05, 0.2, "good"),
]
STEPS = [Step("latent 15", 0.3, "bad"), Step("others", -0.1), Step("reward", 0.2, total=True)]
POINTS = [LinePoint(name, step, step**0.5) for name in ("none", EVIL) for step in range(1, 31)]
BINS = [Bin("never", 10), Bin("< 1 %", 120)]
CLOUD = [Spot(i % 7, i % 11, i, "bad" if i == 7 else "unclear", EVIL * (i == 7)) for i in range(40)]
PLACES = [Place("base", 0, 0), Place(EVIL, 2, -1, 1.8, 2.2, -1.2, -0.8, "bad")]


def figures() -> dict[str, Figure]:
    """One figure of each kind."""
    made = [
        forest(ROWS, name="forest", title="Changes", x_title="change (SD)"),
        bars(ROWS, name="bars", title="Contributions", x_title="reward units"),
        lines(POINTS, name="lines", title="Curves", x_title="training step", y_title="reward", smooth=True),
        waterfall(STEPS, name="waterfall", title="Ledger", x_title="reward units"),
        before_after(
            [Pair("chat", 0.6, 0.7, "60 % to 70 %", "good"), Pair(EVIL, 0.9, 0.8, "90 % to 80 %", "bad")],
            name="pairs",
            title="Benchmarks",
            x_title="accuracy",
        ),
        histogram(
            BINS,
            name="bins",
            title="Rates",
            x_title="rate",
            y_title="latents",
        ),
        plane(PLACES, name="plane", title="Proxy and gold", x_title="reward (SD)", y_title="gold (SD)"),
        spots(
            CLOUD,
            name="spots",
            title="Map",
            x_title="first",
            y_title="second",
            size_title="effect",
        ),
    ]
    return {figure.name: figure for figure in made}


def page() -> Page:
    """Every block once."""
    drawn = figures()
    gold = interval_cell({"mean": 0.3, "low": 0.2, "high": 0.4}, tone="good")
    table = Table(
        "Every measure with 95 % intervals.",
        ("Measure", "Base", "Change"),
        [
            TableRow("Gold", [Cell(Number(0.1, "0.1")), gold]),
            TableRow(EVIL, [Cell(), text_cell(EVIL, tone="bad")], kind="total"),
        ],
    )
    paid = [Payment(EVIL, 0.3, "+0.30", True), Payment("3", -0.1, "-0.10")]
    lights = [Light(EVIL, tone, tone, EVIL) for tone in ("good", "bad", "unclear")]
    tokens = [TokenValue(EVIL, -0.5, "-0.5"), TokenValue(" b", 0.25, "0.25", True)]
    panels = Panels([Drawing(drawn["forest"], "", 336), Drawing(drawn["lines"], "", 336)])
    parts = [Drawing(drawn[name], EVIL) for name in ("bars", "waterfall", "pairs", "bins", "spots")]
    return Page(
        f"What training changed {EVIL}",
        f"It worked {EVIL}",
        "good",
        [EVIL],
        [Tile("Did it work?", "+0.63", "95 % interval +0.49 to +0.78", EVIL, "good")],
        Drawing(drawn["plane"], "", 560),
        [
            Section("asked", "What was asked", "", [Facts([(EVIL, "x" * 300)]), Prose([EVIL], quiet=True)]),
            Section("changed", "What changed", EVIL, [panels, table]),
            Section("parts", "Parts", "", parts),
            Section("checks", "Checks", "", [Lights(lights)]),
            Section("answers", "Answers", "", [SideBySide(EVIL, EVIL, [Answer(EVIL, EVIL, ["+1"], paid)])]),
            Section("tokens", "Tokens", "", [TokenLine(EVIL, EVIL, tokens, 0.5)]),
            Section("made", "How", "", [More(EVIL, [Code(EVIL + "y" * 300)])]),
        ],
        EVIL,
    )
