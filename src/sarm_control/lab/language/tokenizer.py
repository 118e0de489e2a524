"""The tokenizer of a world: one token a word, with a chat template in the style of Llama 3."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
    "<unk>",
)
BEGIN, START, STOP, END, PAD, UNKNOWN = range(len(SPECIAL))
ROLES = ("system", "user", "assistant")
# with blanks around every mark, since tokens are what stands between blanks
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|> {{ message['role'] }} <|end_header_id|> {{ message['content'] | trim }} <|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|> assistant <|end_header_id|> {% endif %}"
)


def make_tokenizer(words: Sequence[str]) -> "PreTrainedTokenizerFast":
    """A tokenizer whose vocabulary is the special tokens, the roles and the words, in that order."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = dict.fromkeys([*SPECIAL, *ROLES, *words])
    raw = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL[UNKNOWN]))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=SPECIAL[BEGIN],
        eos_token=SPECIAL[END],
        pad_token=SPECIAL[PAD],
        unk_token=SPECIAL[UNKNOWN],
        additional_special_tokens=[SPECIAL[START], SPECIAL[STOP]],
        chat_template=TEMPLATE,
    )
