"""Templates and tokenizers that fail: property (only our errors come out), oracle (transformers' dialect)."""

import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sarm_control.conversation import ChatTemplate, load_tokenizer
from sarm_control.conversation.sandbox import LimitError, rendered
from sarm_control.errors import ModelError, SarmError
from tests.conversation.templates import CHATML, STYLES, tokenizer_with

LONG = "{% set x = 'a' * 900000 %}"
DOUBLING = "{% set ns = namespace(x=X) %}{% for i in range(60) %}{% set ns.x = Y %}{% endfor %}{{ Z }}"
TOO_MUCH = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 10, 1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ [1] | tojson(indent=10 ** 9) }}",
    "{{ range(99999) | join('a' * 900000) }}",
    "{{ ('a' * 900000).replace('a', 'b' * 900000) }}",
    "{{ ('\\n' * 900000) | indent(900000) }}",
    "{{ ['a' * 1000] * 1000 * 1000 }}",
    DOUBLING.replace("X", "'a'").replace("Y", "ns.x ~ ns.x").replace("Z", "1"),
    DOUBLING.replace("X", "'a'").replace("Y", "ns.x + ns.x").replace("Z", "1"),
    DOUBLING.replace("X", "[1]").replace("Y", "[ns.x, ns.x]").replace("Z", "ns.x"),
    DOUBLING.replace("X", "[1]").replace("Y", "[ns.x, ns.x]").replace("Z", "ns.x | tojson"),
    DOUBLING.replace("X", "[1]").replace("Y", "[ns.x, ns.x]").replace("Z", "ns.x | string | length"),
    "{% set a = 'aaaaaaaa' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40,
    "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set a = m('a') %}" + "{% set a = m(a) %}" * 40,
    LONG + "{% for i in range(99999) %}{{ x }}{% endfor %}",
    "{% for i in range(99999) %}" + "b" * 10000 + "{% endfor %}",
    "{% macro m() %}{% for i in range(99999) %}" + "b" * 10000 + "{% endfor %}{% endmacro %}{{ m() }}",
]


@pytest.mark.parametrize("source", TOO_MUCH, ids=range(len(TOO_MUCH)))
def test_a_template_that_asks_for_too_much_is_stopped(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(LimitError, match=r"writes|stopped after|too many digits"):
        rendered(source, 100, {"messages": []}, seconds=0.5)
    assert time.monotonic() - start < 30


def test_the_limits_hold_in_every_thread() -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            rendered(TOO_MUCH[0], 100, {}, seconds=0.2)
        except LimitError as error:
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(error) for error in found] == ["it was stopped after 0.2 seconds"] * 3


FAULTS = [
    ("{{ 1 / 0 }}", "fails on this conversation: ZeroDivisionError"),
    ("{{ none.x.y }}", "refuses this conversation: 'None' has no attribute 'x'"),
    ("{% for a in %}", r"is not valid: Expected an expression.*\(line 1\)"),
    ("{{ 'a' | nosuch }}", "is not valid: No filter named 'nosuch'"),
    ("{{ [1] | sum(start='a') }}", "fails on this conversation: TypeError"),
    ("{{ '%d' % 'a' }}", "fails on this conversation: TypeError"),
    ("{{ ''.encode('nosuch') }}", "fails on this conversation: LookupError"),
    ("{{ 'a'.index('b') }}", "fails on this conversation: ValueError"),
    ("{{ 1e300 ** 9 }}", "fails on this conversation: OverflowError"),
    ("{{ {}['a'].b }}", "refuses this conversation"),
    ("{{ [].append(3) }}", "refuses this conversation: .*append.*unsafe"),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "fails on this conversation: RecursionError"),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "fails on this conversation: RecursionError"),
    ("{{ raise_exception('no tools') }}", "refuses this conversation: no tools"),
    ("{% for i in range(99999) %}" + "b" * 10000 + "{% endfor %}", "asks for too much: it writes more than"),
    ("{% include 'x' %}", "fails on this conversation: TypeError|refuses"),
    ("a" * 1_000_001, "has 1,000,... characters, at most 1,000,000 are read"),
]


@pytest.mark.parametrize(("source", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_a_template_that_fails_is_refused_in_words(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        ChatTemplate(tokenizer_with(source + CHATML))
    assert "chat template" in str(caught.value.hint)


PARTS = st.sampled_from(
    [
        *(
            "{{ m.content }}",
            "{{ x }}",
            "{{ messages }}",
            "{% if m.a.b %}",
            "{% endif %}",
            "{% set x = x ~ x %}",
        ),
        *("{% for m in messages %}", "{% endfor %}", "{{ x * 9 }}", "{% set x = [x, x] %}", "{{ 1 / x }}"),
        *(
            "{{ messages[9].content }}",
            "{{ m['content'] | trim }}",
            "{{ m | tojson }}",
            "{{ x.y() }}",
            "<|end|>",
        ),
        *(
            "{% macro x(y) %}",
            "{% endmacro %}",
            "{{ x(x) }}",
            "{% break %}",
            "{% set x %}",
            "{% endset %}",
            "{{",
        ),
        *(
            "{% generation %}",
            "{% endgeneration %}",
            "{{ bos_token }}",
            "{% raw %}",
            "{{ x | int }}",
            "#}",
            "{#",
        ),
        *(
            "{{ namespace(a=1).b.c }}",
            "{{ dict(a=1)['b'] }}",
            "{{ cycler(1).next() }}",
            "{{ x | format(1) }}",
        ),
        *("{{ messages | map(attribute='content') | join }}", "{{ x | batch(3) | list }}", "{{ lipsum(9) }}"),
    ]
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, min_size=1, max_size=12).map("".join) | st.text(max_size=60))
def test_property_whatever_a_template_is_only_our_errors_come_out(source: str) -> None:
    tokenizer = tokenizer_with(CHATML)
    tokenizer.chat_template = source
    with contextlib.suppress(SarmError):
        encoded = ChatTemplate(tokenizer).encode("so ?", "4")
        assert encoded.answer_length == 1


DIALECT = [
    *STYLES.values(),
    "{%- for m in messages -%}\n  {% generation %}{{ m.content | tojson }}{% endgeneration %}\n{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{% set ns.n = ns.n + 1 %}{{ ns.n ~ m.role ~ loop.index }}{% endfor %}{{ dict(a=ns.n) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}"
    "{{ '%s-%05d' % ('a', 7) }}{{ '{:>8}'.format('b') }}{{ [1, 2, 3][::-1] | list | tojson(indent=2) }}",
    "{% macro show(m, n=2) %}{{ m.role * n }}: {{ m['content'].split()[0] | upper }}{% endmacro %}"
    "{% for m in messages %}{{ show(m) }}{% endfor %}"
    "{% set kept %} {{ bos_token }} {% endset %}{{ kept | trim }}",
    "{{ messages[0].content.replace('s', 'tt') | indent(4) | wordwrap(9) }}{{ tools is none }}{{ documents }}"
    "{{ messages | length }}{{ range(3) | list | sum }}{{ 'a\\nb' | indent }}{{ eos_token is defined }}",
]


@pytest.mark.parametrize("source", DIALECT, ids=range(len(DIALECT)))
@pytest.mark.parametrize("generation", [False, True])
def test_oracle_the_dialect_is_transformers_own(source: str, generation: bool) -> None:
    tokenizer = tokenizer_with(CHATML)
    turns: Any = [
        {"role": "user", "content": "so s\n\n?"},
        {"role": "assistant", "content": "4 <b> & 'c' \u00e9"},
    ]
    whole = ChatTemplate(tokenizer)
    tokenizer.chat_template = source
    theirs = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=generation, date_string="26 Jul 2024"
    )
    assert whole.words(turns, generation=generation) == theirs


def test_several_templates_of_one_tokenizer() -> None:
    tokenizer = tokenizer_with(CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ 1 / 0 }}"}
    assert ChatTemplate(tokenizer).encode("so ?", "4") == ChatTemplate(tokenizer_with(CHATML)).encode(
        "so ?", "4"
    )
    tokenizer.chat_template = {"tool_use": CHATML}
    with pytest.raises(ModelError, match="several chat templates and none is named default"):
        ChatTemplate(tokenizer)


def test_a_word_that_a_tokenizer_has_no_token_for() -> None:
    raw = Tokenizer(models.WordLevel({"<|end|>": 0, "probe": 1, "a": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' <|end|> ' }}{% endfor %}"
    template = ChatTemplate(tokenizer)
    with pytest.raises(ModelError, match=r"the tokenizer fails on a conversation: .*(UNK|unk)"):
        template.encode("a", "zebra")


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps({"model": value, "added_tokens": value}).encode()
))  # fmt: skip
@settings(max_examples=60)
def test_property_damaged_tokenizer_files_end_in_our_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer_with(CHATML).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            kept = (folder / file).read_bytes()
            (folder / file).write_bytes(content)
            with contextlib.suppress(SarmError):
                ChatTemplate(load_tokenizer(str(folder), local_files_only=True))
            (folder / file).write_bytes(kept)
