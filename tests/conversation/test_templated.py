"""Texts in the words of a chat template: equal to the same prompt and answer given apart (oracle), whatever
an engine's decoder put around them (metamorphic); what cannot be read is refused in words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.conversation.templated import TemplatedText
from sarm_control.data import Prompt
from sarm_control.errors import DataError
from tests.conftest import WORDS, make_tokenizer

STYLES = {
    "llama 3": None,
    "chatml": (
        "{% for m in messages %}<|start|>{{ m['role'] }} {{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant {% endif %}"
    ),
    "thoughts": (
        "{% for m in messages %}<|start|>{{ m['role'] }} {{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant <|stop|>{% endif %}"
    ),
    "no header": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m['role'] == 'user' %}<|start|> {{ m['content'] }} <|stop|>{% else %}"
        " {{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    ),
}
CONVERSATIONS: list[tuple[Prompt, str]] = [
    ("how do i cook bread ?", "one two three ."),
    ("what is safe", ""),
    ("user : yes\n\nno", "  never help , sorry \n"),
    (
        [
            {"role": "user", "content": "open the door"},
            {"role": "assistant", "content": "why ?"},
            {"role": "user", "content": "because"},
        ],
        "no .",
    ),
]


def template_of(style: str, max_length: int | None = 64) -> ChatTemplate:
    tokenizer = make_tokenizer()
    if STYLES[style] is not None:
        tokenizer.chat_template = STYLES[style]
    return ChatTemplate(tokenizer, max_length=max_length)


def prompt_text(template: ChatTemplate, prompt: Prompt) -> str:
    messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return template.words(messages, generation=True)


def read(template: ChatTemplate, text: str, prompt: str | None = None) -> Encoded:
    return template.encode_rendered([TemplatedText(template).render(text, prompt)])[0]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("prompt", "answer"), CONVERSATIONS)
def test_oracle_a_policys_text_is_its_prompt_and_answer(style: str, prompt: Prompt, answer: str) -> None:
    template = template_of(style)
    asked = prompt_text(template, prompt)
    apart = template.encode(prompt, answer)
    for known in (asked, None):
        assert read(template, f"{asked}{answer}<|end|>", known) == apart
        assert read(template, f"{asked}{answer}<|end|>\n", known) == apart
        assert read(template, asked + answer, known) == template.encode(prompt, answer, ended=False)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("prompt", "answer"), CONVERSATIONS)
def test_metamorphic_what_decoders_put_around_a_text_changes_nothing(
    style: str, prompt: Prompt, answer: str
) -> None:
    template = template_of(style)
    asked = prompt_text(template, prompt)
    apart = template.encode(prompt, answer)
    bare = asked.removeprefix("<|begin|>")
    for opening in ("", "<|begin|>", "<|begin|> ", "<|begin|><|begin|>", "<|pad|><|pad|> <|begin|>"):
        text = f"{opening}{bare}{answer}<|end|><|pad|> <|pad|>"
        assert read(template, text) == apart
        assert read(template, text, asked) == apart
    decoded = str(template.tokenizer.decode(template.tokenizer(asked + answer + "<|end|>")["input_ids"]))
    assert read(template, decoded, asked).input_ids == apart.input_ids


@given(words=st.lists(st.sampled_from([*WORDS, "<|end|>", "<|start|>", "<|stop|>"]), max_size=12))
def test_property_no_answer_moves_where_it_begins(words: list[str]) -> None:
    """Also not one that writes headers and ends of turns itself."""
    template = template_of("llama 3")
    answer = " ".join([*words, "yes"])
    asked = prompt_text(template, "what is this ?")
    assert read(template, f"{asked}{answer}<|end|>", asked) == template.encode("what is this ?", answer)


def test_a_prompt_that_lost_its_beginning_is_found_all_the_same() -> None:
    template = template_of("llama 3")
    asked = prompt_text(template, "how do i cook bread ? please help")
    cut = asked[asked.index("bread") :]
    ids = read(template, f"{cut}no .<|end|>", asked).input_ids
    tokens = " ".join(template.tokenizer.convert_ids_to_tokens(ids))
    assert tokens == "<|begin|> bread ? please help <|end|> <|start|> assistant <|stop|> no . <|end|>"


TURNS = [
    {"role": "user", "content": "open the door"},
    {"role": "assistant", "content": "xylophones , why ?"},
    {"role": "user", "content": "because zeppelins help"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "please ?"},
]


def letters(text: str) -> str:
    return "".join(text.split()).removeprefix("<|begin|>")


@pytest.mark.parametrize("style", STYLES)
@given(place=st.integers(1, 200), words=st.lists(st.sampled_from([*WORDS, "HEADER"]), max_size=6))
def test_property_a_conversation_that_lost_its_beginning_anywhere(
    style: str, place: int, words: list[str]
) -> None:
    """As decoded ids, in which words the tokenizer does not know are others."""
    template = template_of(style, max_length=None)
    asked = prompt_text(template, TURNS)
    header = asked[asked.rindex("please ?") + len("please ?") :]
    answer = " ".join(["no", *words]).replace("HEADER", header)
    ids = template.tokenizer(asked, add_special_tokens=False)["input_ids"]
    last = len(ids) - len(template.tokenizer(header, add_special_tokens=False)["input_ids"])
    cut = str(template.tokenizer.decode(ids[min(place, last) :]))
    found = TemplatedText(template).render(f"{cut} {answer} <|end|>", asked)
    assert found.ended
    # a rendered answer does not repeat what the generation prompt opens
    assert letters(found.header) == letters(cut).removesuffix("<|stop|>" if style == "thoughts" else "")
    assert letters(found.whole).endswith(letters(f"{answer}<|end|>"))


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def __call__(self, texts: Any, **options: Any) -> Any:
        self.characters += sum(map(len, [texts] if isinstance(texts, str) else texts))
        return self.tokenizer(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("turns", [1, 3000])
def test_headers_by_the_thousand_are_read_once(turns: int) -> None:
    template = template_of("llama 3", max_length=None)
    asked = prompt_text(template, "why ? " * 9)
    header = asked[asked.rindex("?") + 1 :]
    prompt, text = asked + f" {header}".join(["yes"] * turns) + header, f" no {header}" * 3000
    counting = Counting(template.tokenizer)
    template.tokenizer = counting  # type: ignore[assignment]  # what it does not count, it passes on
    reader = TemplatedText(template)
    with pytest.raises(DataError, match="does not begin with its prompt"):
        reader.render(text, prompt)
    assert 0 < counting.characters < len(text) + len(prompt) + 1000


def test_plain_prompts_are_put_into_the_template() -> None:
    template = template_of("llama 3")
    apart = template.encode("how do i cook", "one two")
    for text in ("how do i cook one two<|end|>", "<|begin|> how do i  cook one two <|end|>"):
        assert read(template, text, "how do i cook") == apart
    beside = TemplatedText(template).render_answer("how do i cook", " one two<|end|>")
    assert template.encode_rendered([beside])[0] == apart


def test_answers_beside_a_templated_prompt() -> None:
    template = template_of("llama 3")
    asked = prompt_text(template, "how do i cook")
    beside = TemplatedText(template).render_answer(asked, "one two")
    assert template.encode_rendered([beside])[0] == template.encode("how do i cook", "one two", ended=False)


def test_a_context_that_is_too_short_cuts_the_same_tokens() -> None:
    template = template_of("llama 3", max_length=10)
    asked = prompt_text(template, "how do i cook bread ?")
    found = read(template, f"{asked}one two three<|end|>", asked)
    assert found == template.encode("how do i cook bread ?", "one two three")
    assert found.truncated > 0


@pytest.mark.parametrize(
    ("text", "prompt", "message"),
    [
        (
            "how do i cook",
            None,
            r"not a conversation in this reward model's chat template.*<\|start",
        ),
        ("<|im_start|>user\nhi<|im_end|>", None, r"holds '<\|im_start\|>' but is not in this reward model's"),
        ("<start_of_turn>user hi no", "<start_of_turn>user hi", r"holds '<start_of_turn>'"),
        ("what is this no", "how do i", r"does not begin with its prompt"),
        (
            "<|start|>user<|stop|> what<|end|><|start|>assistant<|stop|> no",
            "<|start|>user<|stop|> why<|end|><|start|>assistant<|stop|> ",
            r"does not begin with its prompt",
        ),
        ("<|end|> what", "<|end|>", r"holds '<\|end\|>'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, prompt: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(template_of("llama 3"), text, prompt)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes that merge, as in released models: spaces and line ends are tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|start|>", "<|stop|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(["user assistant the answer is\n\n \n\n\n\n not   so"] * 9, trainer)
    template = (
        "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}<|stop|>\n\n"
        "{{ m['content'] | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|begin|>", eos_token="<|end|>", chat_template=template
    )


@pytest.mark.parametrize(
    "answer", ["Sure: do this.", "\n\nnot  so\n", " é\u2028ok ", "", "\n", "<|stop|> a <|end|> b"]
)
def test_oracle_a_byte_level_tokenizer(answer: str) -> None:
    template = ChatTemplate(byte_level_tokenizer())
    tokenizer = template.tokenizer
    asked = prompt_text(template, "Wie geht's?\n")
    apart = template.encode("Wie geht's?\n", answer)
    ids = tokenizer(f"{asked}{answer}<|end|>", add_special_tokens=False)["input_ids"]
    decoded = str(tokenizer.decode(ids, skip_special_tokens=False))
    for text in (f"{asked}{answer}<|end|>", decoded, decoded.removeprefix("<|begin|>")):
        assert read(template, text, asked) == apart
        assert read(template, text) == apart
