"""The policy: a causal language model that is trained, its frozen reference, and a value head.

With LoRA the reference is the same model with its adapters switched off; with full fine-tuning it is
a frozen copy. Dropout is off everywhere: the model stays in evaluation mode while it is trained.

Shapes: `B` rows, `T` tokens of the longest row, `D` hidden size, `V` vocabulary, `M` answer tokens of
all rows, one after another.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sarm_control.conversation import ChatTemplate, load_tokenizer
from sarm_control.embedded import model_folder
from sarm_control.errors import ModelError
from sarm_control.files import atomic_folder
from sarm_control.ppo.config import PolicyConfig
from sarm_control.ppo.lora import add_adapters, merged_weights, save_adapter
from sarm_control.sarm.precision import rounded_factors
from sarm_control.sarm.trunk import quiet_transformers
from sarm_control.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGIT_CHUNK = 256


class TokenBatch(NamedTuple):
    """Prompts and their answers as one padded batch, on one device.

    Args:
        input_ids: [B, T] the prompt and all of the answer but its last token, padded on the right.
        rows: [M] the row of each answer token.
        positions: [M] the column whose state predicts that token.
        targets: [M] the token.
    """

    input_ids: Tensor
    rows: Tensor
    positions: Tensor
    targets: Tensor


class TokenStats(NamedTuple):
    """What a policy says about each of M answer tokens.

    Args:
        logprobs: [M] float32 log-probability at the sampling temperature.
        values: [M] float32 value of the state the token was chosen in; None for the reference.
        entropy: [M] float32 nats, without gradient; None unless asked for.
    """

    logprobs: Tensor
    values: Tensor | None
    entropy: Tensor | None


class ValueHead(nn.Module):
    """A linear value of the policy's last hidden state, standardised per token; 0 everywhere at first."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] states to [...] float32 values."""
        features = nn.functional.layer_norm(hidden.float(), hidden.shape[-1:])
        return (features * self.weight).sum(dim=-1) + self.bias


class Policy:
    """A causal language model with a value head, ready for training.

    Use `Policy.load`; the constructor is for models built in code.

    Args:
        model: the causal language model, or a peft model around one.
        template: its chat template.
        reference: a frozen copy for full fine-tuning; None when switching adapters off gives it.
        autocast: compute in bfloat16 where weights (or adapters) are float32.

    Raises:
        ModelError: an architecture whose logits are more than its head applied to its last state.
    """

    def __init__(
        self,
        model: Any,
        template: ChatTemplate,
        *,
        reference: "PreTrainedModel | None" = None,
        autocast: bool = False,
    ) -> None:
        self.model = model.eval()
        self.template = template
        self.reference = None if reference is None else reference.eval().requires_grad_(False)
        self.autocast = autocast
        self.causal: Any = model if reference is not None else model.get_base_model()
        self.device = next(self.causal.parameters()).device
        self.value_head = ValueHead(self.causal.get_input_embeddings().embedding_dim).to(self.device)
        self._frozen_heads: dict[int, Tensor] = {}
        self._check_head()

    @classmethod
    def load(
        cls, config: PolicyConfig, *, seed: int = 0, device: str | None = None, local_files_only: bool = False
    ) -> "Policy":
        """Loads a policy by hub id, folder or "lab", without running code from the checkpoint.

        Full fine-tuning keeps float32 weights whatever `config.dtype` says and computes in it.

        Raises:
            ModelError: the model or its tokenizer cannot be loaded, or has no chat template.
            ConfigError: LoRA targets that the model does not have.
            MissingExtraError: LoRA without peft installed.
        """
        full, half = config.lora is None, config.dtype == "bfloat16"
        dtype = torch.bfloat16 if half and not full else torch.float32
        place = str(model_folder(config.model, "policy") or config.model)
        template = ChatTemplate(load_tokenizer(place, local_files_only=local_files_only))
        base = _load_causal(place, dtype, local_files_only)
        # An adapter records its base: the name that was asked for, not where the package lies.
        base.name_or_path = base.config.name_or_path = config.model
        base.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))  # type: ignore[arg-type]
        # Measured for SmolLM2-135M on a CPU: plain attention trains 1.3 times as fast as the fused one.
        base.set_attn_implementation("eager" if base.device.type == "cpu" else "sdpa")
        if config.gradient_checkpointing:
            _recompute_layers(base)
        if full:
            return cls(base, template, reference=copy.deepcopy(base), autocast=half)
        assert config.lora is not None
        adapted = add_adapters(base, config.lora, derive_seed(seed, "lora"))
        return cls(adapted, template, autocast=half)

    @property
    def context(self) -> int | None:
        """Most tokens of a conversation, where the model says so."""
        limit = getattr(self.causal.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name; the value head's are apart."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def states(self, *, reference: bool = False, **inputs: Any) -> Any:
        """The output of the decoder without its head: `last_hidden_state` [B, T, D] and the cache."""
        model = self.reference if reference and self.reference is not None else self.causal
        with self._as_reference(reference), self.half_precision():
            return model.base_model(**inputs)

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """[M, D] states to [M, V] float32 logits."""
        model = self.reference if reference and self.reference is not None else self.causal
        head = model.get_output_embeddings()
        logits = nn.functional.linear(hidden.float(), self._head_weight(head), _float(head.bias))
        return _scaled(logits, model.config)

    def answer_stats(
        self, batch: TokenBatch, temperature: float, *, reference: bool = False, entropy: bool = False
    ) -> TokenStats:
        """Log-probabilities and values of answer tokens; only their states ever meet the head.

        Rows are padded on the right under a causal mask, so padding cannot reach a token.
        """
        with self._recomputing():
            output = self.states(reference=reference, input_ids=batch.input_ids, use_cache=False)
        hidden = output.last_hidden_state[batch.rows, batch.positions]
        with_gradient = torch.is_grad_enabled()
        chunks = []
        for states, targets in zip(hidden.split(LOGIT_CHUNK), batch.targets.split(LOGIT_CHUNK), strict=True):
            arguments = (states, targets, temperature, reference, entropy)
            if with_gradient:
                # The logits of a chunk are computed again in the backward pass rather than kept.
                chunk = checkpoint(self._chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                chunk = self._chunk(*arguments)
            chunks.append(chunk)
        logprobs = torch.cat([chunk[0] for chunk in chunks])
        entropies = torch.cat([chunk[1] for chunk in chunks]) if entropy else None
        return TokenStats(logprobs, None if reference else self.value_head(hidden), entropies)

    def batch(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> TokenBatch:
        """Token ids of rows as one right-padded batch; every answer has at least one token."""
        ids = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
        width = max(map(len, ids))
        padded = [row + [0] * (width - len(row)) for row in ids]
        rows = [row for row, answer in enumerate(answers) for _ in answer]
        positions = [
            len(prompt) - 1 + t
            for prompt, answer in zip(prompts, answers, strict=True)
            for t in range(len(answer))
        ]
        targets = [token for answer in answers for token in answer]
        return TokenBatch(*(torch.tensor(x, device=self.device) for x in (padded, rows, positions, targets)))

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Writes the trained policy for plain transformers, adapters merged, with its tokenizer."""
        with atomic_folder(folder, overwrite=overwrite) as temporary, quiet_transformers():
            with merged_weights(self.model) as causal:
                causal.save_pretrained(temporary)
            self.template.tokenizer.save_pretrained(temporary)

    def save_adapter(self, folder: Path, *, overwrite: bool = False) -> bool:
        """Writes the adapters for peft; false (and nothing written) under full fine-tuning."""
        if self.reference is not None:
            return False
        with atomic_folder(folder, overwrite=overwrite) as temporary:
            save_adapter(self.model, temporary)
        return True

    def state_tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of the policy and its value head."""
        value = {name: weight.detach() for name, weight in self.value_head.named_parameters()}
        return {"policy": {name: w.detach() for name, w in self.trainable().items()}, "value_head": value}

    def load_state_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes up what `state_tensors` gave.

        Raises:
            ModelError: other names or shapes than this policy's.
        """
        ours = {"policy": self.trainable(), "value_head": dict(self.value_head.named_parameters())}
        for file, parameters in ours.items():
            stored = tensors[file]
            if _shapes(stored) != _shapes(parameters):
                raise ModelError(f"the checkpoint's {file} tensors do not fit this policy")
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(stored[name])

    def _chunk(
        self, hidden: Tensor, targets: Tensor, temperature: float, reference: bool, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        logits = self.logits(hidden, reference=reference)
        log_p = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
        return log_p.gather(1, targets[:, None])[:, 0], _entropy(log_p.detach()) if entropy else None

    def _head_weight(self, head: nn.Module) -> Tensor:
        weight: Tensor = head.weight  # type: ignore[assignment]
        if weight.dtype == torch.float32:
            return weight
        if id(head) not in self._frozen_heads:
            self._frozen_heads[id(head)] = weight.detach().float()
        return self._frozen_heads[id(head)]

    @contextlib.contextmanager
    def _as_reference(self, reference: bool) -> Iterator[None]:
        if reference and self.reference is None:
            with self.model.disable_adapter():
                yield
        else:
            yield

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        """A layer is recomputed only in training mode; what is inside it stays in evaluation mode."""
        layers = [part for part in self.causal.modules() if getattr(part, "gradient_checkpointing", False)]
        for layer in layers:
            layer.training = torch.is_grad_enabled()
        yield
        for layer in layers:
            layer.training = False

    def precision(self) -> AbstractContextManager[None]:
        """With a bfloat16 model, float32 products may round their factors (never their sums) to it.

        The factors of the head's product are bfloat16 already, so log-probabilities keep float32's
        accuracy at bfloat16's speed. Float32 policies are left alone.
        """
        return rounded_factors(self.autocast)

    @contextlib.contextmanager
    def rounded_weights(self) -> Iterator[None]:
        """Holds float32 weights as the bfloat16 that autocast makes of them at every call.

        The results are the same; for passes without gradients only, which are then faster.
        """
        linear = [part for part in self._linear_layers() if part.weight.dtype == torch.float32]
        kept = [part.weight.data for part in linear] if self.autocast else []
        for part, weight in zip(linear, kept, strict=False):
            part.weight.data = weight.to(torch.bfloat16)
        try:
            with torch.no_grad():
                yield
        finally:
            for part, weight in zip(linear, kept, strict=False):
                part.weight.data = weight

    def _linear_layers(self) -> list[nn.Linear]:
        models = [model for model in (self.causal, self.reference) if model is not None]
        heads = {id(model.get_output_embeddings()) for model in models}
        parts = (part for model in models for part in model.modules() if id(part) not in heads)
        return [part for part in parts if isinstance(part, nn.Linear)]

    def half_precision(self) -> Any:
        """The context the decoder runs in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    @torch.no_grad()
    def _check_head(self) -> None:
        """One forward pass that proves `logits(states)` is what the model itself computes."""
        ids = torch.arange(4, device=self.device)[None, :]
        with self.half_precision():
            whole = self.causal(input_ids=ids, use_cache=False).logits[0].float()
        ours = self.logits(self.states(input_ids=ids, use_cache=False).last_hidden_state[0])
        if not torch.allclose(whole, ours, rtol=0.05, atol=0.05 * float(whole.abs().max())):
            raise ModelError(
                f"{type(self.causal).__name__} changes its logits after the head in a way not known here",
                hint="use a Llama, Qwen, Gemma, Mistral or GPT style model as the policy",
            )


def _load_causal(name: str, dtype: torch.dtype, local_files_only: bool) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype,
                local_files_only=local_files_only,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"no policy can be loaded from {name}: {first_line}",
            hint="give the folder or hub id of a causal language model with safetensors weights",
        ) from error
    return model


def _recompute_layers(model: Any) -> None:
    # Renamed in transformers 5; the old name warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """What Gemma 2, Granite and Cohere do to their logits after the head."""
    times, over = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
    if times != over:
        logits = logits * (times / over)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()
