"""The study on real text: a planted shortcut, controls that discovery chose, placebos, seeds, a judge.

docs/results/real-shortcut.md holds the design, which was written before the first run. Each stage leaves a
file behind and is not run again while that is there; the study itself goes on where it was stopped.

    python scripts/real_shortcut.py --data ../shared/data [--work work/shortcut] [--only plant build gates]
    python scripts/real_shortcut.py --plan      what the runs will take
    python scripts/real_shortcut.py --blocks closing --work work/closing     one reward model alone
    python scripts/real_shortcut.py --round 2 --blocks bullets --work work/bullets-2     the second round

`--tiny` does all of it in a minute or two with a model of two layers, one arm and two steps: it shows that
the stages fit together and nothing else.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import real_shortcut_evasion as evasion
import real_shortcut_models as models
import real_shortcut_second as second
import real_shortcut_second_tables as second_tables
import real_shortcut_signal as signal_of
import yaml
from real_shortcut_data import JUDGES, SHORTCUTS, TRAINED, Sizes, plant, read
from real_shortcut_tables import outcome_text

HERE = Path(__file__).parent
WARM = (0.08, 0.25)
"""The rate of the shortcut at the start; outside of it the share of warm-start answers is moved once."""


class Places(NamedTuple):
    """Where the data lies, where everything is written, and how large it is.

    Args:
        data: the folder of benchmark rows.
        work: the folder of everything that is made.
        tiny: a model of two layers and few rows in place of the real ones.
        jobs: cells at a time.
        blocks: reward models whose policies are trained, `closing` or `closing-attached`; none are all.
        round: 1, or 2, whose pairs, judge, arms and outcomes differ.
    """

    data: Path
    work: Path
    tiny: bool
    jobs: int
    blocks: tuple[str, ...] = ()
    round: int = 1

    @property
    def second(self) -> bool:
        """Whether this is the second round."""
        return self.round == 2

    @property
    def base(self) -> Path:
        """The language model."""
        return self.work / "base"

    @property
    def sizes(self) -> Sizes:
        """Prompts of each part."""
        if self.tiny:
            return second.TINY if self.second else Sizes(40, 12, 6, 12, 16)
        return Sizes()

    @property
    def shortcuts(self) -> tuple[str, ...]:
        """Shortcuts with a reward model of their own."""
        if self.blocks:
            return tuple(
                name for name in self.order if name in {one.partition("-")[0] for one in self.blocks}
            )
        if self.tiny:
            return ("closing",)
        return self.order

    @property
    def order(self) -> tuple[str, ...]:
        """Shortcuts in the order of the design; the first round has the opener, for its gate."""
        return second.BLOCKS if self.second else tuple(SHORTCUTS)

    @property
    def trained(self) -> tuple[str, ...]:
        """Shortcuts of which policies are trained, if their gates let them."""
        return tuple(name for name in self.shortcuts if name in TRAINED)

    @property
    def attached(self) -> tuple[str, ...]:
        """Shortcuts that have a second reward model, a classifier with its dictionary; none in round 2."""
        if self.second:
            return ()
        return tuple(name for name in self.trained if not self.blocks or f"{name}-attached" in self.blocks)


def command(*words: str | Path, also: int = 0) -> int:
    """Runs `sarm` to its end; its exit code.

    Args:
        words: behind `sarm`.
        also: another exit code that is no failure.

    Raises:
        SystemExit: it failed.
    """
    print("==", "sarm", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "sarm_control", *map(str, words)], check=False)
    if done.returncode not in (0, also):
        raise SystemExit(f"sarm {words[0]} ended with {done.returncode}")
    return done.returncode


def fetch(places: Places) -> None:
    """The language model that is trunk, judge and policy."""
    if places.tiny:
        models.tiny_base(places.base, places.data)
    else:
        subprocess.run([sys.executable, HERE / "fetch_smollm2.py", places.base], check=True)
        models.widen_where_slow(places.base)


def planted(places: Places) -> None:
    """Every file of rows."""
    sizes = places.sizes
    if places.second:
        # the same-text half of the audit and the gate compare a text with itself, so refusing tells nothing
        told = sizes.training + sizes.audit // 2
        plant(
            places.data,
            places.work,
            sizes,
            order=lambda rows: second.balanced(rows, told),
            judge=second.judge_pairs,
        )
    else:
        plant(places.data, places.work, sizes)
    print(signal_of.refusal_text(places.work / places.shortcuts[0]))
    note(places, "plant", {"sizes": sizes._asdict(), "round": places.round})


def build(places: Places) -> None:
    """A SARM for each shortcut, the opener's too, which its gate is expected to refuse."""
    small = ("--layer", "1", "--latents", "32", "--k", "16", "--steps", "400", "--batch", "32")
    size = small if places.tiny else ("--layer", "6", "--latents", "256", "--k", "24")
    for name in places.shortcuts:
        pairs, out = places.work / name / "training.jsonl", places.work / name / "sarm"
        if not (out / "config.json").is_file():
            command("build", "--base", places.base, *size, "--pairs", pairs, "-o", out)
    note(places, "build", {name: str(places.work / name / "sarm") for name in places.shortcuts})


def attach(places: Places) -> None:
    """The second reward model of each trained shortcut: a classifier with a dictionary attached."""
    size = (
        ("--latents", "32", "--k", "16", "--steps", "200")
        if places.tiny
        else ("--latents", "256", "--k", "24")
    )
    found = {}
    for name in places.attached:
        folder = places.work / name
        found[name] = models.fit_classifier(places.base, folder / "training.jsonl", folder / "classifier")
        command(
            *("attach", "--model", folder / "classifier", "--pairs", folder / "training.jsonl"),
            *(*size, "-o", folder / "attached"),
        )
    note(places, "attach", found)


def gate(places: Places) -> None:
    """Which cells may be trained; the others are reported as not controllable."""
    found = {name: models.gates(places.work / name / "sarm", places.work / name) for name in places.shortcuts}
    for name in places.attached:
        found[f"{name}-attached"] = models.gates(places.work / name / "attached", places.work / name)
    for name, one in found.items():
        print(
            f"{name}: five latents detect it with AUROC {one['detects']:.2f}, latent {one['latent']} alone "
            f"with {one['best_latent']:.2f}, paid "
            f"{one['paid']['mean']:+.2f} SD: {'controllable' if one['controllable'] else 'not controllable'}"
        )
    note(places, "gates", found)


def judge(places: Places) -> None:
    """The judge: a linear head on full-depth states, from labels and prompts that nothing else uses."""
    out = places.work / "judge"
    found = models.fit_classifier(places.base, places.work / "judge_training.jsonl", out)
    kinds = {f"_{kind}": kind for kind in second.HELD_OUT} if places.second else {"": "their labels"}
    for suffix, kind in kinds.items():
        accuracy = models.accuracy_of(out, places.work / f"judge_held_out{suffix}.jsonl")
        found[f"accuracy_held_out{suffix}"] = accuracy
        print(f"judge: accuracy {accuracy:.2f} on held-out pairs of {kind}")
    note(places, "judge", found)


def warm(places: Places) -> None:
    """One policy for each shortcut that is controllable, which shows it now and then."""
    longest = 12 if places.tiny else 40
    found: dict[str, Any] = {}
    for name in worlds_of(places, every=True):
        folder, share = places.work / name, 20
        out = folder / "policy"
        rates = {}
        for _ in range(2):
            models.warm_start(places.base, folder / f"warm_{share}.jsonl", out)
            rule = SHORTCUTS[name].rule
            rate = rates[share] = models.rate_of(
                out, places.work / "check_prompts.jsonl", rule, longest=longest
            )
            moved = 30 if rate < WARM[0] else 10 if rate > WARM[1] else share
            if moved == share or len(rates) == 2:
                break
            share = moved
        found[name] = {"share": share, "rates": rates}
        print(f"{name}: {share} % of the warm-start answers have it, {rates[share]:.2f} of the policy's")
    note(places, "warm", found)


def predict(places: Places) -> None:
    """Sixteen answers of each starting policy, which the audit before training reads."""
    longest, count = (12, 4) if places.tiny else (evasion.LONGEST, evasion.ANSWERS)
    for name in worlds_of(places, every=True):
        folder = places.work / name
        evasion.sample_candidates(
            folder / "policy",
            places.work / "predicted_prompts.jsonl",
            folder / "candidates.jsonl",
            answers=count,
            longest=longest,
        )
    note(places, "candidates", {"answers": count, "longest": longest})


def before(places: Places) -> None:
    """The controls of every arm, what the rewards under them go with, and the judge's gates; round 2."""
    from sarm_control.study import load_study, open_study
    from sarm_control.study.arms import write_controls

    path, folder = write_study(places), places.work / "study"
    asked = load_study(path)
    open_study(folder, asked)
    accuracy = json.loads((places.work / "judge.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for world in worlds_of(places):
        write_controls(folder, asked, world)
        seen = signal_of.signals_of_candidates(
            asked.worlds[world],
            places.work / world / "sarm",
            places.work / world / "candidates.jsonl",
            folder / "controls" / world,
        )
        verdict = second_tables.judge_gates(accuracy, seen[signal_of.JUDGE]["refuses"])
        chosen = signal_of.chosen_of(folder / "controls" / world)
        found[world] = {"signals": seen, "judge": verdict, "controls": chosen}
        print(second_tables.before_text(world, found[world]))
    note(places, "before", found)


def study(places: Places) -> None:
    """All arms and seeds, block by block."""
    path = write_study(places)
    where = ("-o", places.work / "study", "--jobs", str(places.jobs))
    # a run that fails leaves the others alone, and a block the blocks behind it
    worlds = yaml.safe_load(path.read_text())["worlds"]
    chosen: list[list[str]] = [[world] for world in worlds]
    if places.second:
        # the arms of the primary outcome before the rest
        chosen = [
            part for world in worlds for part in ([f"{world}/{arm}/*" for arm in second.FIRST], [world])
        ]
    codes = [
        command("study", path, *where, *(word for one in part for word in ("--only", one)), also=1)
        for part in chosen
    ]
    if any(codes):
        raise SystemExit("some runs failed, see above: the same command tries them again")
    note(places, "study.done", {"study": str(places.work / "study" / "study.json")})


def tables(places: Places) -> None:
    """What came out, by the outcomes of the design."""
    found, gates = (
        json.loads((places.work / name).read_text(encoding="utf-8"))
        for name in ("study/study.json", "gates.json")
    )
    if places.second:
        known = json.loads((places.work / "before.json").read_text(encoding="utf-8"))
        text = second_tables.outcome_text(found, gates, known)
    else:
        text = outcome_text(found, gates)
    prompts = [row["prompt"] for row in read(places.work / "held_out_prompts.jsonl")]
    parts = [text, *(_evasion(places, prompts, world) for world in worlds_of(places))]
    text = "\n\n".join(parts)
    (places.work / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def results(places: Places) -> None:
    """One file of all that was found, for `benchmarks/results`."""
    names = ["study/study.json", *(f"{name}.json" for name in ("plant", "gates", "judge", "warm", "before"))]
    names += [path.name for path in sorted(places.work.glob("evasion-*.json"))]
    names += [path.name for path in sorted(places.work.glob("signals-*.json"))]
    found = {
        Path(name).stem: json.loads((places.work / name).read_text(encoding="utf-8"))
        for name in names
        if (places.work / name).is_file()
    }
    note(places, "results", found)


def _evasion(places: Places, prompts: list[str], world: str) -> str:
    """What best-of-16 foretold of a world, what the certificate allowed, and what PPO did."""
    shortcut, _, attached = world.partition("-")
    folder, study = places.work / shortcut, places.work / "study"
    controls = study / "controls" / world / "controls.yaml"
    predicted = evasion.predictions(
        folder / (attached or "sarm"), folder / "candidates.jsonl", controls if controls.is_file() else None
    )
    moved = evasion.movements(study, prompts, world, SHORTCUTS[shortcut].rule)
    shares = evasion.residual_shares(folder / attached, study, prompts, world) if attached else {}
    note(places, f"evasion-{world}", {"predicted": predicted, "moved": moved, "residual_shares": shares})
    seen = signal_of.signals(folder / (attached or "sarm"), study, world, prompts)
    note(places, f"signals-{world}", seen)
    text = "\n\n".join(
        [
            evasion.evasion_text(world, predicted, moved),
            signal_of.signal_text(world, seen),
            signal_of.refusal_text(folder),
        ]
    )
    lines = [
        f"Share of the gain that no latent carries, {arm}, by seed: "
        + ", ".join(f"{value:.2f}" for value in by_seed)
        for arm, by_seed in shares.items()
    ]
    return "\n\n".join([text, *lines])


def worlds_of(places: Places, *, every: bool = False) -> list[str]:
    """Shortcuts to be trained: those that passed the gates, in the order of the design.

    The tiny mode trains whatever the gates say: a model of two layers pays for nothing.
    """
    found = json.loads((places.work / "gates.json").read_text(encoding="utf-8"))
    known = [name for name in places.order if name in TRAINED]
    names = [name for name in known if name in found and (places.tiny or found[name]["controllable"])]
    if not names:
        raise SystemExit("no shortcut passed its gates: nothing is trained, and gates.json is the result")
    attached = [f"{name}-attached" for name in names if found.get(f"{name}-attached", {}).get("controllable")]
    if every:
        return names
    ordered = [*names[:1], *attached[:1], *names[1:], *attached[1:]]
    return [name for name in ordered if not places.blocks or name in places.blocks]


def write_study(places: Places) -> Path:
    """The study file of the design, for the worlds that passed."""
    from sarm_control.training import dump_yaml

    path = places.work / "real_shortcut_study.yaml"
    names = worlds_of(places)
    values = {
        "base": str(HERE / "real_shortcut.yaml"),
        "set": tiny_settings() if places.tiny else {},
        "seeds": [0] if places.tiny else [0, 1, 2],
        "prompts": str(places.work / "held_out_prompts.jsonl"),
        "worlds": {name: world(places, name) for name in names},
        "arms": arms(places),
        "compare": [] if places.tiny else [["controls", "placebo"], ["controls", "none, stopped"]],
    }
    if places.second:
        values |= second.settings(tiny_settings() if places.tiny else {})
    path.write_text(dump_yaml(values), encoding="utf-8")
    return path


def world(places: Places, name: str) -> dict[str, Any]:
    """One world: its reward model, policy, audit pairs, rule and judge."""
    shortcut, _, attached = name.partition("-")
    folder = places.work / shortcut
    return {
        "set": {
            "policy": {"model": str(folder / "policy")},
            "reward": {"model": str(folder / (attached or "sarm"))},
            "data": {
                "prompts": str(places.work / "train_prompts.jsonl"),
                "human": str(folder / "human.jsonl"),
            },
        },
        "audit": [str(folder / "audit.jsonl")],
        "audits": {"content": [str(folder / "content.jsonl")]},
        "rule": SHORTCUTS[shortcut].rule,
        "strip": SHORTCUTS[shortcut].strip,
        "judge": str(places.work / "judge"),
    }


def arms(places: Places) -> dict[str, Any]:
    """The arms of the design."""
    if places.tiny:
        return {"none": {}}
    more = {"seeds": [0, 1, 2, 3, 4]}
    return {
        "none": more,
        "controls": {"discover": {}, **more},
        "placebo": {"discover": {"labels": "shuffled"}, **more},
        "none, stopped": {"stop_at_kl_of": "controls", **more},
        "edits": {"discover": {"keep": "edits"}},
        "penalties": {"discover": {"keep": "penalties"}},
        "target rate": {"discover": {"keep": "penalties", "target_rate": 0.05}},
        "random latents": {"discover": {"latents": "random"}},
        "human KL": {"set": {"reward": {"human_kl": {"beta": "0.1sd"}}}},
        "content only": {"discover": {"audit": "content"}},
        "oracle": {"rule_penalty": "1sd"},
        "none, held": {"hold_kl_of": "controls"},
    }


def tiny_settings() -> dict[str, Any]:
    """Two steps of a few answers."""
    training = {"steps": 2, "prompts_per_step": 2, "max_new_tokens": 12, "reference_answers": 8}
    return {"training": training, "policy": {"dtype": "float32", "lora": {"rank": 2}}}


STAGES: dict[str, tuple[Callable[[Places], None], str]] = {
    "fetch": (fetch, "base/tokenizer.json"),
    "plant": (planted, "plant.json"),
    "build": (build, "build.json"),
    "attach": (attach, "attach.json"),
    "gates": (gate, "gates.json"),
    "judge": (judge, "judge.json"),
    "warm": (warm, "warm.json"),
    "predict": (predict, "candidates.json"),
    "before": (before, "before.json"),
    "study": (study, "study.done.json"),
    "tables": (tables, "tables.md"),
    "results": (results, "results.json"),
}
"""In order: what each does, and the file that it leaves when it is done."""
SECOND_ALONE = ("before",)


def note(places: Places, name: str, values: dict[str, Any]) -> None:
    """Marks a stage as done, with its figures."""
    path = places.work / f"{name}.json"
    path.with_suffix(".tmp").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)


def main() -> None:
    """Runs the stages whose output is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/shortcut"))
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    blocks = [*TRAINED, *(f"{name}-attached" for name in TRAINED)]
    parser.add_argument(
        "--blocks", nargs="+", choices=blocks, default=[], help="these alone, in a --work of their own"
    )
    parser.add_argument("--round", type=int, choices=(1, 2), default=1, help="of the study; see the page")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes")
    parser.add_argument("--plan", action="store_true", help="the study's time and disk")
    options = parser.parse_args()
    if not (options.data / JUDGES).is_file():
        raise SystemExit(f"{options.data} does not hold {JUDGES}; name their folder by --data")
    places = Places(
        options.data, options.work, options.tiny, options.jobs, tuple(options.blocks), options.round
    )
    if places.second and any(one.endswith("-attached") for one in places.blocks):
        raise SystemExit("the second round has no attached reward models")
    places.work.mkdir(parents=True, exist_ok=True)
    # a kill ends the command that runs too: two studies in one folder would only wait for each other
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.plan:
        command(
            "study", write_study(places), "-o", places.work / "study", "--jobs", str(places.jobs), "--plan"
        )
        return
    for name in options.only:
        if name in SECOND_ALONE and not places.second:
            continue
        work, output = STAGES[name]
        if (places.work / output).exists():
            print(f"== {name}: {output} is there already")
            continue
        start = time.monotonic()
        work(places)
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
