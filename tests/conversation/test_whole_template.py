"""All that a template writes, for reward models read behind the end of turn (oracle: transformers)."""

import pytest
from hypothesis import given

from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ModelError
from tests.conversation.templates import STYLES, tokenizer_with
from tests.conversation.test_span import ANSWERS, tokens

TEMPLATES = {style: ChatTemplate(tokenizer_with(source), whole=True) for style, source in STYLES.items()}
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% else %}{{ '[' + message['content'] + '] ' }}{% endif %}{% endfor %}"
)


@pytest.mark.long
@pytest.mark.parametrize("style", STYLES)
@given(answer=ANSWERS)
def test_oracle_the_ids_are_all_of_transformers_own(style: str, answer: str) -> None:
    template = TEMPLATES[style]
    turns = [{"role": "user", "content": "so ?"}, {"role": "assistant", "content": answer}]
    text = template.tokenizer.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024")
    encoded = template.encode("so ?", answer)
    assert template.render("so ?", answer).whole == text
    assert encoded.input_ids == tokens(template, str(text))
    closing = encoded.input_ids[len(encoded.input_ids) - encoded.closing :]
    assert template.end_of_turn_id in closing
    said = encoded.input_ids[encoded.prompt_length : len(encoded.input_ids) - encoded.closing]
    assert len(said) == encoded.answer_length
    assert str(template.tokenizer.decode(said)).strip() == answer.strip()


@pytest.mark.parametrize("style", STYLES)
def test_what_is_appended_stands_last_and_stays_when_the_text_is_cut(style: str) -> None:
    tokenizer = tokenizer_with(STYLES[style])
    template = ChatTemplate(tokenizer, whole=True, append="<|begin|>", max_length=80)
    short, cut = (template.encode("so ?", answer) for answer in ("4", "yes " * 90))
    assert short.truncated == 0
    assert cut.truncated > 0
    assert len(cut.input_ids) == 80
    for encoded in (short, cut):
        assert encoded.input_ids[-1] == tokenizer.convert_tokens_to_ids("<|begin|>")
        assert encoded.closing == TEMPLATES[style].encode("so ?", "4").closing + 1


def test_a_template_without_an_end_of_turn_is_read_to_its_last_word() -> None:
    tokenizer = tokenizer_with(PLAIN)
    with pytest.raises(ModelError, match="writes no special token after an answer"):
        ChatTemplate(tokenizer)
    encoded = ChatTemplate(tokenizer, whole=True).encode("so ?", "yes")
    assert encoded.closing == 0
    answer = tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert encoded.input_ids[encoded.prompt_length :] == answer
    assert encoded.answer_length == len(answer)
