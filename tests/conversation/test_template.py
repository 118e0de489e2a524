"""Oracle and property tests of templates: one begin-of-text, end-of-turn last, cut from the left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from sarm_control.conversation import ChatTemplate
from sarm_control.data import prompt_key
from sarm_control.errors import ModelError
from tests.conftest import WORDS, make_tokenizer
from tests.present import present

CHATML = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\\n ' + message['content'] + ' <|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n ' }}{% endif %}"
)
NO_BOS = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|> ' + m['content'] + '<|end|>' }}"
    "{% endfor %}"
)


def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Like SmolLM2: the begin-of-text opens every turn, and pad is the end of turn."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.bos_token = "<|start|>"
    tokenizer.pad_token = "<|end|>"
    return tokenizer


@pytest.mark.parametrize("tokenizer", [make_tokenizer(), chatml_tokenizer()], ids=["llama-3", "chatml"])
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.lists(st.sampled_from(WORDS), max_size=12)
)
def test_conversations_end_at_the_end_of_turn(
    tokenizer: PreTrainedTokenizerFast, prompt: list[str], answer: list[str]
) -> None:
    template = ChatTemplate(tokenizer)
    encoded = template.encode(" ".join(prompt), " ".join(answer))
    assert encoded.input_ids[-1] == template.end_of_turn_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert encoded.answer_length == len(answer)
    assert encoded.input_ids[: encoded.prompt_length] == template.encode_prompt(" ".join(prompt))
    assert template.decode_answer(encoded.input_ids[encoded.prompt_length :]) == " ".join(answer)


def test_exactly_one_begin_of_text() -> None:
    template = ChatTemplate(make_tokenizer())
    bos = present(template.bos_id)
    assert template.encode("why ?", "no").input_ids.count(bos) == 1
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    doubled = ChatTemplate(tokenizer).encode("why ?", "no").input_ids
    assert doubled == template.encode("why ?", "no").input_ids


def test_a_begin_of_text_that_opens_every_turn_is_kept() -> None:
    template = ChatTemplate(chatml_tokenizer())
    assert template.encode("why ?", "no").input_ids.count(present(template.bos_id)) == 2


def test_pad_may_equal_the_end_of_turn() -> None:
    template = ChatTemplate(chatml_tokenizer())
    assert template.pad_id == template.end_of_turn_id


@pytest.mark.parametrize("limit", [5, 8, 11, 14])
def test_truncation_keeps_begin_and_end(limit: int) -> None:
    whole = ChatTemplate(make_tokenizer()).encode("one two three four five", "yes yes no no")
    cut = ChatTemplate(make_tokenizer(), max_length=limit).encode("one two three four five", "yes yes no no")
    dropped = len(whole.input_ids) - limit
    assert cut.truncated == dropped
    assert cut.input_ids == whole.input_ids[:1] + whole.input_ids[1 + dropped :]
    assert 1 <= cut.prompt_length <= len(cut.input_ids) - 1


def test_nothing_is_cut_when_it_fits() -> None:
    template = ChatTemplate(make_tokenizer(), max_length=100)
    assert template.encode("why ?", "no").truncated == 0


@pytest.mark.parametrize(
    "left_behind",
    [{"truncation": True, "max_length": 3}, {"padding": "max_length", "max_length": 40}],
    ids=["cut", "padded"],
)
def test_what_another_call_of_the_tokenizer_left_behind_is_not_heeded(left_behind: dict[str, Any]) -> None:
    tokenizer = make_tokenizer()
    template = ChatTemplate(tokenizer)
    rendered = [template.render("why ?", "no"), template.render("no", "why")]
    text = rendered[0].whole
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert template.encode_rendered(rendered)[0].input_ids == expected
    cut_or_padded = tokenizer(text, **left_behind)["input_ids"]
    assert cut_or_padded != expected
    for _ in range(2):
        assert template.encode_rendered(rendered)[0].input_ids == expected


def test_special_tokens_in_words_are_split_where_the_tokenizer_does_so() -> None:
    tokenizer = make_tokenizer()
    template = ChatTemplate(tokenizer)
    whole = template.render("why ?", "no")
    tokenizer.split_special_tokens = True
    (found,) = template.encode_rendered([whole])
    split = tokenizer(whole.whole, add_special_tokens=False)["input_ids"]
    assert [one for one in found.input_ids if one not in (template.bos_id, template.end_of_turn_id)] == [
        one for one in split if one not in (template.bos_id, template.end_of_turn_id)
    ]


def test_no_chat_template_is_said_clearly() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template") as caught:
        ChatTemplate(tokenizer)
    assert "chat_template" in str(caught.value.hint)


def test_a_template_without_end_of_turn_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' . ' }}{% endfor %}"
    with pytest.raises(ModelError, match="writes no special token after an answer"):
        ChatTemplate(tokenizer)


def test_what_the_template_refuses_is_passed_on() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + NO_BOS
    )
    with pytest.raises(ModelError, match="refuses this conversation: No system role"):
        ChatTemplate(tokenizer).encode([{"role": "system", "content": "a"}], "no")


def test_prompt_keys_join_a_string_and_its_single_turn() -> None:
    assert prompt_key("why ? ") == prompt_key([{"role": "user", "content": "why ?"}]) == "why ?"
    assert prompt_key([{"role": "system", "content": "a"}, {"role": "user", "content": "why ?"}]) != "why ?"
