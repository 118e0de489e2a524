"""Tiny models built in code, and the recorded reference checkpoints where they are at hand."""

import tests.checked_shapes  # noqa: F401  the first: it hooks into the import of the package

# isort: split
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from sarm_control.console import set_quiet
from sarm_control.conversation import ChatTemplate
from sarm_control.reward_model import (
    Autoencoder,
    LinearHead,
    RewardModel,
    SarmConfig,
    Trunk,
    base_config,
    base_folder,
    cut_config,
    load_trunk,
)

# A shell ignores interrupts for jobs in the background, and children inherit that: the tests of
# Ctrl-C have to work wherever the suite is started from.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is. `make test` is the quick look; continuous
# integration and pytest by itself take all examples.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("all", deadline=None)
settings.load_profile("all")

SHARED = Path(os.environ.get("SARM_SHARED", Path(__file__).parents[2] / "shared"))

SPECIAL = ["<|begin|>", "<|start|>", "<|stop|>", "<|end|>", "<|pad|>", "<unk>"]
WORDS = (  # noqa: SIM905 - a list of sixty quoted words reads worse
    "user assistant system how do i what is the a good bad safe unsafe answer yes no please help never "
    "always cook bread bomb lock pick open door why because sorry cannot can sure here steps one two three "
    "four five you we they it this that and or not . ? ! ,"
).split()
LLAMA_3_STYLE = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}<|stop|> "
    "{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|> {% endif %}"
)


@pytest.fixture(autouse=True)
def _as_talkative_as_a_new_process() -> None:
    """A command that an earlier test called with --quiet silences this process."""
    set_quiet(False)


@pytest.fixture(scope="module")
def no_network() -> Iterator[None]:
    """Refuses every connection, so that whatever asks the network fails."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError("a test tried to use the network")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark rows; tests that need it are skipped where it is absent."""
    return _or_skip(SHARED / "data")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs as people have them; tests that need it are skipped where it is absent."""
    return _or_skip(SHARED / "cases")


@pytest.fixture(scope="session")
def reference_topk() -> Path:
    """A tiny checkpoint with outputs of the paper's implementation, TopK on."""
    return _or_skip(SHARED / "reference" / "sarm-topk")


@pytest.fixture(scope="session")
def reference_dense() -> Path:
    """The same with TopK off."""
    return _or_skip(SHARED / "reference" / "sarm-dense")


def _or_skip(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(
            f"{folder.parent.name}/{folder.name} is not on this machine (set SARM_SHARED to its parent)"
        )
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with a Llama-3 style chat template."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        unk_token="<unk>",
        additional_special_tokens=["<|start|>", "<|stop|>"],
        chat_template=LLAMA_3_STYLE,
    )


def make_llama_config(layers: int) -> LlamaConfig:
    """A decoder small enough for a test and random enough to tell answers apart."""
    return LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=3,
        pad_token_id=4,
    )


def cut_trunk(base: str, layer: int, *, local_files_only: bool = False) -> Trunk:
    """The first layers of a causal language model, as `sarm build` takes them."""
    folder = base_folder(base, local_files_only=local_files_only)
    config = cut_config(base_config(folder, base), layer, base)
    return load_trunk(folder, config, name=base, dtype="auto", device=None)


def make_sarm(*, seed: int = 0, latents: int = 64, k: int = 8, use_topk: bool = True) -> RewardModel:
    """A SARM with random weights, built in code."""
    torch.manual_seed(seed)
    trunk = Trunk(LlamaModel(make_llama_config(layers=2)))
    autoencoder = Autoencoder(32, latents, k, use_topk=use_topk)
    torch.nn.init.normal_(autoencoder.pre_bias, std=0.1)
    torch.nn.init.normal_(autoencoder.latent_bias, std=0.1)
    weight = torch.randn(latents).numpy().astype(np.float32)
    config = SarmConfig(source_layer=2, latents=latents, k=k, use_topk=use_topk, trunk={})
    template = ChatTemplate(make_tokenizer(), max_length=256)
    return RewardModel(config, trunk, autoencoder, LinearHead(weight), template)


@pytest.fixture(scope="session")
def tiny_sarm() -> RewardModel:
    """A SARM with 64 latents, k = 8, over a 2-layer trunk."""
    return make_sarm()


@pytest.fixture(scope="session")
def tiny_sarm_folder(tmp_path_factory: pytest.TempPathFactory, tiny_sarm: RewardModel) -> Path:
    """The same SARM on disk."""
    return tiny_sarm.save_pretrained(tmp_path_factory.mktemp("models") / "tiny-sarm")


@pytest.fixture(scope="session")
def tiny_attached_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dictionary with 48 latents, k = 6, attached to a 2-layer classifier with a bias, on disk."""
    from tests.reward_model import classifiers
    from tests.reward_model.test_attached import make_dictionary

    folder = tmp_path_factory.mktemp("models") / "tiny-rm"
    config = classifiers.CONFIGS["llama"]()
    base = RewardModel.from_pretrained(
        classifiers.save(classifiers.make_classifier(config, bias=True), folder), device="cpu"
    )
    return base.attach(make_dictionary(base)).save_pretrained(folder.with_name("tiny-attached"))


@pytest.fixture(scope="session")
def tiny_attached(tiny_attached_folder: Path) -> RewardModel:
    """The same model, loaded."""
    return RewardModel.from_pretrained(tiny_attached_folder, device="cpu")


@pytest.fixture(scope="session")
def tiny_policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of 3 layers with the same tokenizer, on disk."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models") / "tiny-policy"
    LlamaForCausalLM(make_llama_config(layers=3)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
