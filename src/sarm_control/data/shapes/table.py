"""The forms of rows by example: what docs/data.md shows, and what the tests hold the reader to."""

import json
from dataclasses import dataclass
from typing import Any

_ASKED, _SAID, _WORSE = "why ?", "because .", "no ."
_USER = {"role": "user", "content": _ASKED}
_GOOD = {"role": "assistant", "content": _SAID}
_BAD = {"role": "assistant", "content": _WORSE}
_ANSWER = {"prompt": _ASKED, "response": _SAID}
_PAIR = {"prompt": _ASKED, "chosen": _SAID, "rejected": _WORSE}
_TURNS = f"\n\nHuman: {_ASKED}\n\nAssistant: "


@dataclass(frozen=True)
class Form:
    """One form of rows.

    Args:
        name: what it is called; of a form of others, as in "read as: ...".
        example: the fields of a row of it.
        plain: the fields of the plain row it is read as.
        how: how it is read, in words.
    """

    name: str
    example: dict[str, Any]
    plain: dict[str, Any]
    how: str


_OWN = "plain rows"
FORMS = (
    Form(_OWN, _ANSWER, _ANSWER, "a prompt and an answer; `question` and `answer` are read as the same"),
    Form(_OWN, _PAIR, _PAIR, "a pair"),
    Form(
        _OWN,
        {"prompt": _ASKED, "chosen": [_SAID, "because it is ."], "rejected": [_WORSE]},
        {"prompt": _ASKED, "chosen": [_SAID, "because it is ."], "rejected": [_WORSE]},
        "a pair with several answers on a side",
    ),
    Form(
        _OWN,
        {"prompt": _ASKED, "candidates": [_SAID, _WORSE]},
        {"prompt": _ASKED, "candidates": [_SAID, _WORSE]},
        "answers to choose among",
    ),
    Form(_OWN, {"prompt": _ASKED}, {"prompt": _ASKED}, "a prompt alone"),
    Form(
        _OWN,
        {"messages": [{"role": "system", "content": "help ."}, _USER, _GOOD]},
        {"prompt": [{"role": "system", "content": "help ."}, _USER], "response": _SAID},
        "the last message is the answer when it is the assistant's; a prompt may be such a list, too",
    ),
    Form(
        _OWN,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": _ASKED}]},
                {"role": "assistant", "content": [{"type": "text", "text": _SAID}]},
            ]
        },
        _ANSWER,
        "parts of type text are joined, wherever a message stands; other parts are refused",
    ),
    Form(
        "UltraFeedback messages",
        {"prompt": _ASKED, "chosen": [_USER, _GOOD], "rejected": [_USER, _BAD]},
        _PAIR,
        "the turns before the last are the prompt, and `prompt` has to be one of them",
    ),
    Form(
        "pairs of conversations",
        {"chosen": [_USER, _GOOD], "rejected": [_USER, _BAD]},
        _PAIR,
        "Skywork, TRL without a prompt: the turns before the last are the prompt, the same on both sides",
    ),
    Form(
        "TRL messages with a prompt",
        {"prompt": [_USER], "chosen": [_GOOD], "rejected": [_BAD]},
        _PAIR,
        "answers are messages of their own, or the whole conversation again",
    ),
    Form(
        "HH-RLHF transcripts",
        {"chosen": _TURNS + _SAID, "rejected": _TURNS + _WORSE},
        _PAIR,
        "cut at the marks; the turns before the last are the prompt. Also a prompt that ends in `Assistant:`",
    ),
    Form(
        "ShareGPT conversations",
        {"conversations": [{"from": "human", "value": _ASKED}, {"from": "gpt", "value": _SAID}]},
        _ANSWER,
        "the last turn is the answer; or `chosen` and `rejected` turns beside it. `system` goes before",
    ),
    Form(
        "prompt and completion",
        {"prompt": _ASKED, "completion": _SAID},
        _ANSWER,
        "texts, or messages of both",
    ),
    Form(
        "Alpaca",
        {"instruction": "translate .", "input": "oui", "output": "yes"},
        {"prompt": "translate .\n\noui", "response": "yes"},
        "the input, if there is one, stands below the instruction; `system` and `history` go before",
    ),
    Form(
        "HelpSteer3",
        {"context": [_USER], "response1": _WORSE, "response2": _SAID, "overall_preference": 2},
        _PAIR,
        "below 0 the first response is better, above 0 the second; at 0 they are candidates, and no pair",
    ),
)


def forms_table() -> str:
    """The forms as a table in Markdown."""
    lines = ["| form | example | how it is read |", "|---|---|---|"]
    for form in FORMS:
        example = json.dumps(form.example, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| {form.name} | `{example}` | {form.how} |")
    return "\n".join(lines) + "\n"
