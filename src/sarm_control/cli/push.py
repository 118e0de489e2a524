"""`sarm push`: a run's policy or a reward model, with its card, to the hub."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, OUTPUT
from sarm_control.cli._next import again, say_next
from sarm_control.cli.card import Benchmark, Comparison, Discovery, License
from sarm_control.console import say


def push(
    source: Annotated[str, Parameter(group=INPUT, help="Run folder, or folder of a reward model.")],
    repo: Annotated[str, Parameter(group=OUTPUT, help="OWNER/NAME on the hub.")],
    /,
    *,
    comparison: Comparison = None,
    discovery: Discovery = None,
    evaluation: Benchmark = None,
    license_id: License = None,
    public: Annotated[
        bool,
        Parameter(group=OUTPUT, negative="", help="Anybody may see a repository that is made now."),
    ] = False,
    dry_run: Annotated[
        bool, Parameter(group=OUTPUT, negative="", help="List the files and their sizes; upload nothing.")
    ] = False,
) -> None:
    """Upload a trained policy or a reward model to the hub, in one commit.

    The card is the folder's README.md, or is written on the way if there is none. The token comes from
    HF_TOKEN or from hf auth login, the server from HF_ENDPOINT. Samples, checkpoints and settings stay here:
    they hold prompts and paths of this machine.
    """
    from sarm_control.publishing import CARD, card_of, contents_of, read_evidence, upload

    contents = contents_of(source)
    own = contents.folder / CARD
    if own.is_file():
        # as it is: somebody may have written it by hand
        card = own.read_bytes()
    else:
        evidence = read_evidence(contents, comparison=comparison, discovery=discovery, evaluation=evaluation)
        name = repo.rpartition("/")[2]
        card = card_of(contents, evidence, name=name, license=license_id).encode("utf-8")
    for line in contents.left_out:
        say(f"left out: {line}")
    if dry_run:
        sizes = {CARD: len(card), **{name: path.stat().st_size for name, path in contents.files.items()}}
        for name, size in sizes.items():
            print(f"{_in_units(size):>10}  {name}")
        print(f"{_in_units(sum(sizes.values())):>10}  in {len(sizes)} files, to {repo}")
        say("dry run: nothing was uploaded")
        say_next(*again(without=("--dry-run",)))
        return
    files: dict[str, Path | bytes] = {CARD: card, **contents.files}
    print(upload(repo, files, public=public, message=f"sarm push: {contents.kind} {contents.folder.name}"))
    if contents.kind == "run":
        say_next("train", "--policy", repo, "--prompts", "prompts.jsonl", "-o", "runs/on")
    else:
        say_next("score", "--model", repo, "answers.jsonl", "-o", "scores.jsonl")


def _in_units(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
