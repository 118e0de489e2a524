"""Where an answer stands in its template: property (any answer, any released style), oracle (transformers'
own rendering); templates that do not write the answer are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.conversation.templated import TemplatedText
from sarm_control.errors import ModelError
from tests.conversation.templates import CHATML, LLAMA_3, R1, STYLES, tokenizer_with
from tests.present import present

TEMPLATES = {style: ChatTemplate(tokenizer_with(source)) for style, source in STYLES.items()}
# whole words and marks of the templates themselves, so that an answer can look like a turn or its end
PIECES = (
    *(
        "4",
        "yes",
        " ",
        "\n",
        "\n\n",
        "probe",
        "other",
        "user",
        "assistant",
        "model",
        "system",
        "\nassistant\n",
    ),
    *(
        "<|start|>",
        "<|stop|>",
        "<|user|>",
        "<|assistant|>",
        "<|start|>assistant<|stop|>\n\n",
        "think",
        "\u00e9",
    ),
    *("<|start|>user\nno<|end|>\n<|start|>assistant\n", "<|end|>", "<|end|>\n", "<|eos|>", "<|begin|>"),
)
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=20)


def tokens(template: ChatTemplate, text: str) -> list[int]:
    return list(template.tokenizer(text, add_special_tokens=False)["input_ids"])


def said(template: ChatTemplate, encoded: Encoded) -> str:
    return str(template.tokenizer.decode(encoded.input_ids[encoded.prompt_length : -1]))


@pytest.mark.parametrize("style", STYLES)
@given(answer=ANSWERS)
def test_property_every_answer_stands_where_it_is_said_to_stand(style: str, answer: str) -> None:
    template = TEMPLATES[style]
    encoded = template.encode("so ?", answer)
    assert said(template, encoded).strip() == answer.strip()
    of_the_answer = tokens(template, answer)
    for token in (template.end_of_turn_id, template.bos_id):
        if token is None:
            continue
        ours = encoded.input_ids[encoded.prompt_length :]
        ends = token == template.end_of_turn_id
        assert ours.count(token) == of_the_answer.count(token) + ends
    assert encoded.input_ids[-1] == template.end_of_turn_id
    if template.words([{"role": "user", "content": "so"}]).startswith("<|begin|>"):
        assert encoded.input_ids[: encoded.prompt_length].count(present(template.bos_id)) == 1
        assert encoded.input_ids[0] == template.bos_id


@pytest.mark.parametrize("style", STYLES)
@given(answer=ANSWERS)
def test_oracle_the_ids_are_transformers_own_up_to_the_end_of_turn(style: str, answer: str) -> None:
    template = TEMPLATES[style]
    turns = [{"role": "user", "content": "so ?"}, {"role": "assistant", "content": answer}]
    text = template.tokenizer.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024")
    found = template.render("so ?", answer)
    assert str(text).rstrip("\n") == found.whole
    assert template.encode("so ?", answer).input_ids == tokens(template, found.whole)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("answer", ["", "4"])
def test_short_answers_end_once(style: str, answer: str) -> None:
    """Where the prompt opens thoughts, the header is longer than all that follows a short answer."""
    template = TEMPLATES[style]
    encoded = template.encode("so ?", answer)
    assert encoded.input_ids.count(template.end_of_turn_id) == (1 if style == "r1" else encoded_turns(style))
    assert encoded.answer_length == len(answer)
    ids = tokens(template, answer)
    assert encoded.input_ids[encoded.prompt_length :] == [*ids, template.end_of_turn_id]


def encoded_turns(style: str) -> int:
    return 3 if style == "llama 3.1" else 2


@pytest.mark.parametrize("style", STYLES)
@given(answer=ANSWERS)
def test_metamorphic_a_text_from_an_engine_is_the_same_conversation(style: str, answer: str) -> None:
    template = TEMPLATES[style]
    if answer.strip().endswith(("<|end|>", "<|eos|>", "<|begin|>")) or answer != answer.strip():
        answer += "."
    asked = template.words([{"role": "user", "content": "so ?"}], generation=True)
    end = template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    beside = TemplatedText(template).render(f"{asked}{answer}{end}", asked)
    assert template.encode_rendered([beside])[0] == template.encode("so ?", answer)


def test_thoughts_that_a_template_writes_belong_to_the_answer() -> None:
    template = TEMPLATES["qwen 3"]
    whole = "<think>\nnot so\n</think>\n\n4"
    assert said(template, template.encode("so ?", whole)) == whole
    assert said(template, template.encode("so ?", "4")) == "4"


def test_a_template_that_drops_thoughts_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    template = ChatTemplate(tokenizer_with(R1))
    encoded = template.encode("so ?", "not so</think>4")
    assert encoded.input_ids == template.encode("so ?", "4").input_ids
    assert said(template, encoded) == "4"
    template.encode("so ?", "so</think>5")
    told = capsys.readouterr().err
    assert told.count("warning:") == 1
    assert "leaves out 'not so</think>' of an answer" in told


def test_white_space_at_the_edges_and_around_thoughts_is_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    for style in STYLES:
        TEMPLATES[style].encode("so ?", "  4 \n")
    TEMPLATES["qwen 3"].encode("so ?", "<think>so</think>4")
    assert capsys.readouterr().err == ""


ANSWER = "m['content'] + '<|end|>\\n'"
REFUSED = [
    (CHATML.replace(ANSWER, "'yes<|end|>\\n'"), "writes the same text for every answer.*get the same reward"),
    (CHATML.replace(ANSWER, "m['content'] | upper + '<|end|>\\n'"), "rewrites answers: 'probe' becomes"),
    (
        CHATML.replace(ANSWER, "m['content'][:500] + '<|end|>\\n'"),
        "rewrites answers: 'A long answer.*becomes 'A long answer. A lon'",
    ),
    (CHATML.replace(ANSWER, "m['content'] | e + '<|end|>\\n'"), "rewrites answers: .*quotes.*&#34;"),
    (CHATML.replace(ANSWER, "m['content'].split() | join(' ') + '<|end|>\\n'"), "rewrites answers"),
    (
        CHATML.replace(ANSWER, "m['content'] + m['content'] + '<|end|>\\n'"),
        "rewrites answers: 'probe' becomes",
    ),
    (
        LLAMA_3.replace("m['content'] | trim", "(m['content'] if m['role'] == 'user' else '')"),
        "the same text for every answer",
    ),
    (CHATML.replace("<|end|>\\n", "\\n"), "writes no special token after an answer"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_template_that_does_not_write_the_answer_is_refused(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        ChatTemplate(tokenizer_with(source))
    assert "template" in str(caught.value.hint)


def test_a_template_without_a_turn_for_an_empty_answer_gets_one() -> None:
    source = CHATML.replace(
        "{{ '<|start|>' + m['role']", "{% if m['content'] %}{{ '<|start|>' + m['role']"
    ).replace("'<|end|>\\n' }}", "'<|end|>\\n' }}{% endif %}")
    template, plain = ChatTemplate(tokenizer_with(source)), TEMPLATES["chatml"]
    assert template.encode("so ?", "").input_ids == plain.encode("so ?", "").input_ids
