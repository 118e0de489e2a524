"""How long an answer is, how it begins and ends, and what kinds of sign it is made of."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from sarm_control.auditing.attributes.markdown import plain, structure
from sarm_control.auditing.attributes.wording import sentences

# without `_`, which is a mark of emphasis at the ends of a word
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"\"[^\"\n]{3,}\"|\u201c[^\u201d\n]{3,}\u201d")
_CITATION = re.compile(
    r"\[\d{1,3}\]|\([A-Z][\w-]+(?: et al\.)?,? \d{4}[a-z]?\)|\baccording to\b", re.IGNORECASE
)
# behind ]( or < an address belongs to a link, which is counted as such
_ADDRESS = re.compile(r"(?<!\]\()(?<!<)\bhttps?://\S+")
_ENDS = tuple(".!?:\"')]}`*\u201d\u2019\u2026\u3002\uff01\uff1f|")
# the category So holds arrows, frames and signs such as the copyright mark too; from here on it holds
# pictures
_EMOJI_FROM = 0x1F300
_LONGEST_RUN = 8


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def empty(prompt: str, answer: str) -> float:
    """1 where nothing is said."""
    del prompt
    return float(not answer.strip())


def sentence_count(prompt: str, answer: str) -> float:
    """How many sentences."""
    del prompt
    return float(len(sentences(answer)))


def exclamations(prompt: str, answer: str) -> float:
    """How many exclamation marks outside of code."""
    del prompt
    return float(plain(answer).count("!"))


def emoji(prompt: str, answer: str) -> float:
    """How many emoji; letters, digits and signs of punctuation are none."""
    del prompt
    return float(
        sum(
            1
            for sign in answer
            if (ord(sign) >= _EMOJI_FROM and unicodedata.category(sign) == "So")
            # emoji too, in the blocks of plain symbols below
            or sign in "\u2705\u274c\u2728\u2b50\u2764"
        )
    )


def numbers(prompt: str, answer: str) -> float:
    """How many numbers; the numbers of list items are not among them."""
    del prompt
    return float(len(_NUMBER.findall(plain(answer))))


def quotes(prompt: str, answer: str) -> float:
    """How many quoted passages and block quotes."""
    del prompt
    return float(len(_QUOTED.findall(answer)) + structure(answer).quotes)


def citations(prompt: str, answer: str) -> float:
    """How many references to a source: [3], (Smith, 2020), "according to"."""
    del prompt
    return float(len(_CITATION.findall(answer)))


def links(prompt: str, answer: str) -> float:
    """How many links and bare addresses."""
    del prompt
    return float(structure(answer).links + len(_ADDRESS.findall(answer)))


def repeats_prompt(prompt: str, answer: str) -> float:
    """1 where the answer contains eight words of the prompt in a row."""
    return float(not _runs(prompt).isdisjoint(_runs(answer)))


@lru_cache(maxsize=256)  # the answers to a prompt stand one after the other
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    said = words(text)
    return frozenset(tuple(said[i : i + _LONGEST_RUN]) for i in range(len(said) - _LONGEST_RUN + 1))


def repetition(prompt: str, answer: str) -> float:
    """How many sentences were said before in the answer, word for word."""
    del prompt
    said = [tuple(words(part)) for part in sentences(answer)]
    return float(len(said) - len(set(said)))


def broken_end(prompt: str, answer: str) -> float:
    """1 where the answer stops in the middle of a sentence, or leaves a block of code open."""
    del prompt
    text = answer.rstrip()
    if not text:
        return 0.0
    last = text.splitlines()[-1].strip()
    # an odd number of fences: the last block was never closed
    if text.count("```") % 2:
        return 1.0
    in_list = re.match(r"(?:[-*+]|\d+[.)])\s", last) is not None  # items of lists need no full stop
    # an answer may well end with an emoji or be a mere number
    return float(not (last.endswith(_ENDS) or in_list or last.startswith("#") or _ends_in_sign(last)))


def _ends_in_sign(line: str) -> bool:
    return unicodedata.category(line[-1])[0] in "SN"


def other_script(prompt: str, answer: str) -> float:
    """1 where most letters of the answer are of a script that hardly any letter of the prompt has.

    Scripts, not languages: an answer in French to a question in English is not seen.
    """
    asked, said = _scripts(prompt), _scripts(answer)
    if not asked or not said:
        return 0.0
    main = max(said, key=lambda script: said[script])
    # not "none": a foreign name in a prompt is not its script
    return float(said[main] > 0.5 and asked.get(main, 0.0) < 0.1)


@lru_cache(maxsize=2048)
def _scripts(text: str) -> dict[str, float]:
    """Shares of the letters by script, such as LATIN or CYRILLIC; empty for fewer than five letters."""
    counts: dict[str, int] = {}
    for sign, count in Counter(text).items():
        if sign.isalpha():
            script = unicodedata.name(sign, "UNKNOWN").split(" ")[0]
            counts[script] = counts.get(script, 0) + count
    total = sum(counts.values())
    return {script: count / total for script, count in counts.items()} if total >= 5 else {}
