"""Chat templates as released models have them, over a tokenizer of bytes that merge."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|begin|>", "<|start|>", "<|stop|>", "<|end|>", "<|eos|>", "<|user|>", "<|assistant|>")
LLAMA_3 = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|start|>' + m['role'] + '<|stop|>\\n\\n' + "
    "m['content'] | trim + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant<|stop|>\\n\\n' }}{%- endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
# The prompt opens the thoughts, the rendered answer does not repeat it.
CHATML_OPENED = CHATML.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")
# As Qwen3: the last answer is written with its thoughts, empty ones where it has none.
QWEN_3 = """
{%- for m in messages %}
{%- if m.role == 'user' or m.role == 'system' %}
{{- '<|start|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}
{%- else %}
{%- set content = m.content %}{%- set thoughts = '' %}
{%- if '</think>' in content %}
{%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if loop.last %}
{{- '<|start|>' + m.role + '\\n<think>\\n' + thoughts.strip('\\n') }}
{{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}
{%- else %}
{{- '<|start|>' + m.role + '\\n' + content }}
{%- endif %}
{{- '<|end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant\\n' }}{%- endif %}
"""
# As DeepSeek-R1: thoughts are dropped, and the prompt opens them.
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] }}"
    "{% elif m['role'] == 'system' %}{{ m['content'] }}{% else %}{% set content = m['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|assistant|>' + content + '<|eos|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<|start|>' + m['role'].replace('assistant', 'model') + '\\n' + m['content'] | trim + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>model\\n' }}{% endif %}"
)
DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}{{- bos_token }}{{- '<|start|>system<|stop|>\\n\\nToday Date: ' + date_string + "
    "'<|end|>' }}" + LLAMA_3.removeprefix("{{- bos_token }}")
)
STYLES = {
    "llama 3": LLAMA_3,
    "llama 3.1": DATED,
    "chatml": CHATML,
    "chatml, thoughts opened": CHATML_OPENED,
    "qwen 3": QWEN_3,
    "r1": R1,
    "gemma": GEMMA,
}


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    """Bytes that merge, as in released models: spaces and line ends are tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=[*SPECIAL], initial_alphabet=alphabet)
    raw.train_from_iterator(
        ["user assistant model the answer is\n\n \n\n<think>\n</think>\n\n not so 4"] * 9, trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|begin|>",
        eos_token="<|eos|>" if template == R1 else "<|end|>",
        additional_special_tokens=[*SPECIAL],
        chat_template=template,
    )
