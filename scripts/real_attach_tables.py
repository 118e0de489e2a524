"""Writes docs/results/attached.md from the files that scripts/real_attach.py left.

python scripts/real_attach_tables.py [--work work/attach] [--out docs/results/attached.md]
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = {
    "": "dictionary",
    "pca": "PCA of equal k",
    "mean_squared_error": "plain squared error",
    "batch-topk": "k on average",
    "matryoshka": "k on average, nested groups",
    "whitened": "half whitened states",
}
GOALS = {"held_out": 0.98, "elsewhere": 0.95, "state_below": 0.05, "cosine": 0.3}
"""Of the reward's and the margin's variance; how far the state's may lie below that of the plain one; and the
largest |cos| of a latent's direction and the head's."""
COSTS = (
    "*What attaching costs* is the difference of the first two lines, and what sparsity costs that of the "
    "last two. The classifier was trained as a whole, the SARM's layers are those of the language model: the "
    "two kinds differ in more than the dictionary. *Target*: every promoting latent doubled, the mean change "
    "of the rewards of RewardBench 2 safety answers. *Complement*: of RM-Bench chat answers. *Selectivity*: "
    "their ratio. The paper's own figures for one latent of its SARM are +0.28, +0.04 and 4.6; asked here is "
    "every promoting latent at once."
)
READING = (
    "*State*, *reward*, *margin*: the share of the variance that the dictionary explains, of the state that "
    "the head reads, of rewards, and of the chosen answers' rewards less the rejected ones'. What it does "
    "not explain of a reward is the residual, a row of its own everywhere."
)
EARLIER = {
    "first": "the reward's term at full weight, whatever the head",
    "second": "its weight over the variance of the head's direction",
}
"""Fits that were looked at before something was changed, by the end of the names of their folders."""
CHANGED = (
    "After a look at two fits: the first missed the goal for the state, and half of its latents "
    "never fired; the second had a latent too much like the head. This head was trained together with its "
    "layers, so that its direction varies more than others, and the term for the reward weighed too much. "
    "How much it weighs now was chosen on prompts within the fitted ones. The fit above is of the same rows, "
    "whose figures under the first two were known by then."
)
_ATTACH = "sarm attach --model Skywork/{} --pairs pairs.jsonl --eval other_pairs.jsonl --compare -o attached"
ELSEWHERE = [
    "<!-- not run: downloads a reward model -->",
    "```",
    *(_ATTACH.format(name) for name in ("Skywork-Reward-V2-Qwen3-0.6B", "Skywork-Reward-V2-Llama-3.1-8B")),
    "```",
]


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def rewards(path: Path) -> Iterator[float]:
    """Of every answer of a file that `sarm score` wrote."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            yield from (score["reward"] for score in [*row["chosen_scores"], *row["rejected_scores"]])


def identical(work: Path) -> str:
    """Whether every row has the same reward before and after."""
    bare, attached = (list(rewards(work / f"scores-{name}.jsonl")) for name in ("rm", "attached"))
    same = sum(one == two for one, two in zip(bare, attached, strict=True))
    return f"{same} of {len(bare)} rewards of RewardBench 2 safety rows are equal to the last digit."


def fit_table(found: dict[str, Any]) -> Iterator[str]:
    """Shares of variance explained, by reconstruction and by set."""
    yield "| answers of | by | state | reward | margin | residual SD | prompts |"
    yield "|---|---|---|---|---|---|---|"
    own = {"held_out": found["held_out"], **found["evaluation"]}
    for name, mine in own.items():
        for kind, words in NAMES.items():
            one = mine if not kind else found["baselines"].get(kind, {}).get(name)
            if one is not None:
                shares = " | ".join(number(one[key]) for key in ("state", "reward", "margin", "residual_sd"))
                where = "held-out prompts" if name == "held_out" else name
                yield f"| {where} | {words} | {shares} | {one['prompts']} |"


def shapes_table(found: dict[str, Any]) -> Iterator[str]:
    """How the contributions lie on the latents, on held-out prompts, of each dictionary."""
    yield "| by | latents for 50 % of the variance of contributions | for 90 % | never fire | largest cos |"
    yield "|---|---|---|---|---|"
    for kind, one in found.items():
        counts = f"{one['latents_for_50_percent']} | {one['latents_for_90_percent']}"
        yield f"| {NAMES[kind]} | {counts} | {100 * one['dead_share']:.0f} % | {one['max_abs_cosine']:.2f} |"


def costs_table(work: Path) -> Iterator[str]:
    """The attached model beside the SARM: accuracy, discovery, steering."""
    yield (
        "| reward model | pairs right, RewardBench 2 safety | latents that promote | that harm "
        "| target, SD | complement, SD | selectivity |"
    )
    yield "|---|---|---|---|---|---|---|"
    (attached,) = read(work, "attached/attach.json")["evaluation"].values()
    (sarm,) = read(work, "sarm/build.json")["evaluation"].values()
    right = {
        ("the classifier", ""): attached["reward_accuracy"],
        ("the classifier with the dictionary", "attached"): attached["reward_accuracy"],
        ("the SARM's layers with a dense head", ""): sarm["dense"]["pair_accuracy"],
        ("the SARM", "sarm"): sarm["sparse"]["pair_accuracy"],
    }
    for (words, model), accuracy in right.items():
        ends = f"{number(accuracy['mean'])} [{number(accuracy['low'])}, {number(accuracy['high'])}]"
        yield f"| {words} | {ends} | {' | '.join(_found(work, model) if model else 5 * ['-'])} |"


def _found(work: Path, model: str) -> list[str]:
    """What discovery called, and what steering moved."""
    counts = read(work, f"discovery-{model}/features.json")["counts"]
    steered = read(work, f"steering-{model}.json")
    moved = [number(steered.get(key), 2) for key in ("target", "complement", "selectivity")]
    return [str(counts["promotes"]), str(counts["harms"]), *moved]


def stages_table(work: Path) -> Iterator[str]:
    """Time and peak memory."""
    yield "| stage | minutes | peak MiB |"
    yield "|---|---|---|"
    for name, one in read(work, "stages.json").items():
        yield f"| {name} | {one['seconds'] / 60:.1f} | {one['peak_mib']} |"


def goals(found: dict[str, Any]) -> Iterator[str]:
    """What was aimed at before the run, and whether it was reached."""
    plain = found["baselines"]["mean_squared_error"]["held_out"]["state"]
    (elsewhere,) = found["evaluation"].values()
    asked = [
        ("reward, held-out prompts", found["held_out"]["reward"], GOALS["held_out"]),
        ("margin, held-out prompts", found["held_out"]["margin"], GOALS["held_out"]),
        ("reward, another benchmark", elsewhere["reward"], GOALS["elsewhere"]),
        ("margin, another benchmark", elsewhere["margin"], GOALS["elsewhere"]),
        ("state, held-out prompts", found["held_out"]["state"], plain - GOALS["state_below"]),
    ]
    yield "| variance explained of | goal, at least | measured | |"
    yield "|---|---|---|---|"
    for what, value, goal in asked:
        yield f"| {what} | {number(goal)} | {number(value)} | {'met' if value >= goal else '**missed**'} |"
    cosine = found["contributions"]["max_abs_cosine"]
    said = "met" if cosine <= GOALS["cosine"] else "**missed**"
    yield f"| (largest cos with the head, at most) | {number(GOALS['cosine'])} | {number(cosine)} | {said} |"


def earlier_fits(work: Path) -> Iterator[str]:
    """What was changed after a look at fits, where those are kept."""
    kept = {name: work / f"attached-{name}" / "attach.json" for name in EARLIER}
    found = {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in kept.items() if path.exists()
    }
    if not found:
        return
    yield from ["", "## Changed", "", CHANGED, ""]
    yield "| fit | state | reward | margin | elsewhere: reward | margin | never fire | largest cos |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, one in found.items():
        (elsewhere,) = one["evaluation"].values()
        shares = [number(one["held_out"][key]) for key in ("state", "reward", "margin")]
        shares += [number(elsewhere[key]) for key in ("reward", "margin")]
        shape = one["contributions"]
        ends = f"{100 * shape['dead_share']:.0f} % | {shape['max_abs_cosine']:.2f}"
        yield f"| {name}: {EARLIER[name]} | {' | '.join(shares)} | {ends} |"


def ran_on(work: Path) -> str:
    """The machine, in a sentence."""
    one = read(work, "machine.json")
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in one["flags"]]
    where = one["gpu"] or f"{one['threads']} cores of {one['processor']} ({', '.join(wide)})"
    return (
        f"Run on {where}, torch {one['torch']}. TRL trained in {one['trained_in']}; what scores computes in "
        "the type of its checkpoint, which is float32 of the classifier and bfloat16 of the SARM's layers."
    )


def read(work: Path, name: str) -> Any:
    """A JSON file."""
    return json.loads((work / name).read_text(encoding="utf-8"))


def page(work: Path) -> Iterator[str]:
    """The whole page."""
    found, settings = read(work, "attached/attach.json"), read(work, "settings.json")
    rows = "all rows" if settings["rows"] is None else f"the first {settings['rows']} rows of each file"
    yield "# A dictionary attached on real text"
    yield ""
    # what whoever ran it makes of the tables
    if (work / "short.md").exists():
        yield from [(work / "short.md").read_text(encoding="utf-8").strip(), ""]
    yield (
        f"`make real-attach` wrote the figures: SmolLM2-135M-Instruct, {settings['steps']} steps of TRL's "
        f"`RewardTrainer` of {settings['pairs_of_a_step']} pairs each, {rows}; one seed. "
        f"{ran_on(work)}"
    )
    texts, parts = found["texts"], found["contributions"]
    yield ""
    yield (
        f"The dictionary has {found['latents']} latents, k = {found['k']}, from {texts['answers']} answers "
        f"to {texts['prompts']} prompts, {texts['held_out_prompts']} of them held out. {identical(work)}"
    )
    yield ""
    yield from ["## The fit", "", READING, "", *goals(found)]
    yield ""
    yield from fit_table(found)
    yield ""
    yield from shapes_table({"": parts, **found["tried"]})
    yield ""
    for one in found["stability"]:
        yield (
            f"Beside another seed the median cosine of nearest latents is {one['median_cosine']:.2f}, the "
            f"rank correlation of effects {number(one['effects'], 2)}."
        )
    yield from earlier_fits(work)
    yield from ["", "## Beside a SARM of the same pairs", "", *costs_table(work), "", COSTS, ""]
    yield from ["## Time and memory", ""]
    yield from stages_table(work)
    # what whoever ran it has to say of these times
    if (work / "notes.md").exists():
        yield from ["", (work / "notes.md").read_text(encoding="utf-8").strip()]
    yield from [
        "",
        "## Other reward models",
        "",
        "The same for ones that people use, not run here:",
        "",
        *ELSEWHERE,
    ]


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/attach"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/attached.md"))
    arguments = parser.parse_args()
    arguments.out.write_text("\n".join(page(arguments.work)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
