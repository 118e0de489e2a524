"""The policy: a causal language model that is trained, its frozen reference, and a critic.

With LoRA the reference is the same model with its adapters switched off, or with a frozen copy of an adapter
that is trained on; with full fine-tuning it is a frozen copy. Dropout is off everywhere: the model stays in
evaluation mode while it is trained, so that the log-probabilities of a rollout can be computed again exactly.

Shapes: `B` rows, `T` tokens of the longest row, `D` hidden size, `V` vocabulary, `M` answer tokens of
all rows, concatenated.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarm_control.conversation import ChatTemplate, configured_ends, distinct_ids, load_tokenizer
from sarm_control.errors import ModelError
from sarm_control.files import atomic_folder
from sarm_control.reward_model import (
    cache_argument,
    has_bfloat16,
    has_tiles,
    quiet_transformers,
    rounded_factors,
    takes_sdpa,
    whole_factors,
    with_own_memory,
)
from sarm_control.seeds import derive_seed
from sarm_control.training.config.run_config import PolicyConfig
from sarm_control.training.policy.adapter_files import policy_source
from sarm_control.training.policy.cpu_linear import can_pack, is_plain, packed_products
from sarm_control.training.policy.critic import Critic, HeadCritic, ValueHead
from sarm_control.training.policy.language_head import LanguageHead
from sarm_control.training.policy.lora import (
    CRITIC,
    START,
    active_adapter,
    add_adapters,
    continue_adapter,
    few_rows,
    merge_adapter,
    merged_adapters,
    merged_linears,
    merged_weights,
    own_linears,
    recompute_layers,
    save_adapter,
)
from sarm_control.training.policy.sharding import Sharding, parted_like, whole_tensor
from sarm_control.training.policy.token_batch import TokenBatch, TokenStats, token_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Policy:
    """A causal language model with a critic, ready for training.

    The critic is a linear head on its own states until `critic` is given another one.

    Use `Policy.load`; the constructor is for models built in code.

    Args:
        model: the causal language model, or a peft model around one.
        template: its chat template.
        reference: a frozen copy for full fine-tuning; None when switching adapters gives it.
        autocast: compute in bfloat16 where weights (or adapters) are float32.

    Every token of `end_ids` ends an answer: the template's end-of-turn comes first, then those that the
    tokenizer, the generation config and the config name as end of sequence.

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
        # the adapter of the reference: where a policy that is trained on started, else none
        self._start = START if START in (getattr(model, "peft_config", None) or {}) else None
        self.causal: Any = model if reference is not None else model.get_base_model()
        named = (getattr(self.causal, "generation_config", None), self.causal.config)
        self.end_ids = distinct_ids(
            [*template.end_ids, *(i for config in named for i in configured_ends(config))]
        )
        self.device = next(self.causal.parameters()).device
        self.critic: Critic = HeadCritic(self.hidden_size, self.device)
        self.sharding: Sharding | None = None
        # inside `decoding` with packed weights, which computes in float32 and has the adapters in the weights
        self._packed = False
        self._head = LanguageHead(self.causal)
        # with adapters policy and reference share one head, which is frozen
        self._reference_head = self._head if reference is None else LanguageHead(reference)
        self._cache_name = cache_argument(self.causal.base_model)
        self._check_head()

    @classmethod
    def load(
        cls,
        config: PolicyConfig,
        *,
        seed: int = 0,
        device: str | None = None,
        local_files_only: bool = False,
        template_date: str | None = None,
    ) -> "Policy":
        """Loads a policy by hub id, folder or "lab", without running code from the checkpoint.

        A LoRA adapter is loaded with the base that it names: merged into it, or trained on, see
        `PolicyConfig.adapter`. The reference is the policy as it is loaded, adapter included.

        Full fine-tuning keeps float32 weights whatever `config.dtype` says and computes in that type.
        `template_date` is the day that the chat template gets, see `ChatTemplate`.

        Raises:
            ModelError: the model or its tokenizer cannot be loaded, or has no chat template; an adapter of a
                kind not known here, or whose base is not there or another one.
            ConfigError: LoRA targets that the model does not have, or settings that the adapter that is
                continued does not have.
            MissingExtraError: LoRA without peft installed.
        """
        source = policy_source(config.model, local_files_only=local_files_only)
        merged, continued = source.split(config)
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        with source.naming_base(source.tokenizer):
            tokenizer = load_tokenizer(source.tokenizer, local_files_only=local_files_only)
        template = ChatTemplate(tokenizer, date=template_date)
        with source.naming_base(source.base):
            full, half = config.lora is None, computes_in_half(config, source.base, local_files_only, target)
            # trained weights stay float32: bfloat16, with 8 bits, would round most of AdamW's updates away
            dtype = torch.bfloat16 if half and not full else torch.float32
            base = _load_causal(source.base, dtype, local_files_only)
        for adapter in merged:
            base = merge_adapter(base, adapter)
        # An adapter records its base: this must be the name that was asked for, not a path of this machine.
        base.name_or_path = base.config.name_or_path = source.recorded_base(config)
        base.to(target)  # type: ignore[arg-type]
        # Measured on a CPU with SmolLM2-135M: plain attention trains 1.3 times as fast as fused attention.
        fused = base.device.type != "cpu" and takes_sdpa(base)
        base.set_attn_implementation("sdpa" if fused else "eager")
        if config.gradient_checkpointing:
            recompute_layers(base)
        if config.lora is None:
            return cls(base, template, reference=copy.deepcopy(base), autocast=half)
        if continued is not None:
            return cls(continue_adapter(base, continued), template, autocast=half)
        adapted = add_adapters(base, config.lora, derive_seed(seed, "lora"))
        return cls(adapted, template, autocast=half)

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.causal.get_input_embeddings().embedding_dim)

    @property
    def value_head(self) -> ValueHead:
        """The last layer of the critic."""
        return self.critic.head

    @property
    def context(self) -> int | None:
        """Most tokens of a conversation; None where the model names no limit."""
        limit = getattr(self.causal.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    def trainable(self) -> dict[str, nn.Parameter]:
        """The policy's trained weights, by name; the critic's are not among them."""
        weights = self.model.named_parameters()
        return {name: w for name, w in weights if w.requires_grad and f".{CRITIC}." not in name}

    def critic_weights(self) -> dict[str, nn.Parameter]:
        """The critic's trained weights, by name, those of its head included."""
        head = {f"value_head.{name}": weight for name, weight in self.value_head.named_parameters()}
        return {**head, **{f"critic.{name}": weight for name, weight in self.critic.body().items()}}

    def states(self, *, reference: bool = False, cache: Any = None, **inputs: Any) -> Any:
        """The output of the decoder without its head, whose `last_hidden_state` is [B, T, D].

        Args:
            reference: take the reference's states.
            cache: keys and values of the earlier tokens; the pass adds those of its own.
            inputs: arguments of the decoder, such as `input_ids`.
        """
        model = self.reference if reference and self.reference is not None else self.causal
        if cache is not None:
            inputs |= {self._cache_name: cache, "use_cache": True}
        with self._as_reference(reference), self.half_precision():
            return model.base_model(**inputs)

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """[M, D] states to [M, V] float32 logits."""
        return (self._reference_head if reference else self._head).logits(hidden)

    def token_states(self, batch: TokenBatch, *, reference: bool = False) -> Tensor:
        """[M, D] the last state that each answer token was chosen in, by the forward pass of training."""
        with self._recomputing():
            output = self.states(reference=reference, input_ids=batch.input_ids, use_cache=False)
        states: Tensor = output.last_hidden_state[batch.rows, batch.positions]
        return states

    def answer_stats(
        self, batch: TokenBatch, temperature: float, *, reference: bool = False, entropy: bool = False
    ) -> TokenStats:
        """Log-probabilities and values of answer tokens; the head is applied to their states alone."""
        hidden = self.token_states(batch, reference=reference)
        head = self._reference_head if reference else self._head
        found = head.logprobs(hidden, batch.targets, temperature, entropy=entropy)
        values = None if reference else self.critic.values(batch, hidden)
        return TokenStats(found.logprobs, values, found.entropy)

    def batch(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> TokenBatch:
        """Token ids of rows as one right-padded batch; every answer has at least one token."""
        return token_batch(prompts, answers, self.device)

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

    def shard(self, *, reshard: bool = True) -> None:
        """Shards the decoder layers over the processes; see `training.policy.sharding`."""
        self.sharding = Sharding(self._models(), reshard=reshard)

    def whole(self) -> AbstractContextManager[None]:
        """Keeps all weights whole, for passes without gradients; has an effect only on sharded layers."""
        return contextlib.nullcontext() if self.sharding is None else self.sharding.whole()

    def state_tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that a checkpoint keeps of the policy and its critic."""
        parts = self._parts().items()
        return {file: {name: whole_tensor(w.detach()) for name, w in named.items()} for file, named in parts}

    def load_state_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]], *, critic: bool = True) -> None:
        """Restores what `state_tensors` returned, with or without the critic's tensors.

        Raises:
            ModelError: other names or shapes than this policy's.
        """
        for file, parameters in self._parts().items():
            if file != "policy" and not critic:
                continue
            stored = tensors.get(file, {})
            if _shapes(stored) != _shapes(parameters):
                raise ModelError(f"the checkpoint's {file} tensors do not fit this policy")
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(parted_like(stored[name], parameter))

    def _parts(self) -> dict[str, dict[str, nn.Parameter]]:
        head, body = dict(self.value_head.named_parameters()), dict(self.critic.body())
        return {"policy": self.trainable(), "value_head": head, **({"critic": body} if body else {})}

    def _as_reference(self, reference: bool) -> AbstractContextManager[None]:
        other_adapter = reference and self.reference is None and not self._packed
        return active_adapter(self.causal, self._start) if other_adapter else contextlib.nullcontext()

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Sets checkpointed layers to training mode, without which transformers does not recompute them.

        The modules inside a layer stay in evaluation mode, so dropout stays off.
        """
        layers = [part for part in self.causal.modules() if getattr(part, "gradient_checkpointing", False)]
        for layer in layers:
            layer.training = torch.is_grad_enabled()
        yield
        for layer in layers:
            layer.training = False

    def precision(self) -> AbstractContextManager[None]:
        """Under a bfloat16 model, float32 products may round their factors (never their sums) to bfloat16.

        The factors of the head's product are bfloat16 already, so log-probabilities keep the accuracy of
        float32 at the speed of bfloat16. For a float32 policy this does nothing.
        """
        return rounded_factors(self.autocast)

    @contextlib.contextmanager
    def rounded_weights(self) -> Iterator[None]:
        """Keeps float32 weights rounded to bfloat16, as autocast would round them at every call.

        The results are the same and the passes are faster. For passes without gradients only.
        """
        linear = [part for part in self._linear_layers() if part.weight.dtype == torch.float32]
        # empty without autocast, and then the loops below change nothing
        kept = [part.weight.data for part in linear] if self.autocast else []
        for part, weight in zip(linear, kept, strict=False):
            part.weight.data = weight.to(torch.bfloat16)
        try:
            with torch.no_grad():
                yield
        finally:
            for part, weight in zip(linear, kept, strict=False):
                part.weight.data = weight

    @contextlib.contextmanager
    def decoding(self, *, reference: bool = False) -> Iterator[None]:
        """For passes of one token a row, with kernels that suit few rows.

        On a processor without matrix units everything is float32, whatever the policy trains in: adapters are
        added to the weights, which are packed (`packed_products`). A few rows in bfloat16 take longer there,
        for casts and for the adapters' own products. Elsewhere it is like `rounded_weights`, and float32
        adapters are merged into float32 weights; in bfloat16 the sum would round the adapters away. Sharded
        layers are left as they are.

        Args:
            reference: the passes are made by the reference.
        """
        model = self.reference if reference and self.reference is not None else self.causal
        merged = self._packable(model, reference=reference)
        if merged is not None:
            packed = self._in_float32(model, merged)
            with torch.no_grad(), _fused_attention([model]), active_adapter(model, None), packed:
                yield
            return
        # merging reads whole float32 weights
        plain = not (self.autocast or self.sharding)
        adapters = merged_adapters(self.causal) if plain and not reference else few_rows(self.causal)
        with self.rounded_weights(), _fused_attention(self._models()), adapters:
            yield

    @property
    def packs(self) -> bool:
        """Whether `decoding` multiplies with packed float32 weights, where the adapters allow it."""
        # has_tiles: matrix units multiply a few rows in bfloat16 faster
        slow = self.device.type == "cpu" and not (self.autocast and has_tiles())
        return slow and self.sharding is None and can_pack()

    def _packable(self, model: Any, *, reference: bool) -> dict[nn.Linear, Callable[[], Tensor]] | None:
        """The weights with adapters that are packed; None where nothing is."""
        if not self.packs:
            return None
        # with adapters the reference is where the policy started, which may be an adapter too
        plain = reference and self._start is None
        merged = {} if plain else merged_linears(model, self._start if reference else None)
        # an adapter can only be added to a product that is made here
        return merged if merged is not None and all(map(is_plain, merged)) else None

    @contextlib.contextmanager
    def _in_float32(self, model: Any, merged: Mapping[nn.Linear, Callable[[], Tensor]]) -> Iterator[None]:
        """Packs the products of a model and computes the rest of it in float32, its adapters switched off.

        Args:
            model: whose.
            merged: what gives the weights that are not the layer's own.
        """
        linear = [layer for layer in own_linears(model) if is_plain(layer)]

        def weight_of(layer: nn.Linear) -> Tensor:
            made = merged.get(layer)
            return layer.weight.detach().float() if made is None else made()

        self._packed = True
        try:
            with whole_factors(), _float32_parts(model, linear), packed_products(linear, weight_of):
                yield
        finally:
            self._packed = False

    def _models(self) -> list[Any]:
        return [model for model in (self.causal, self.reference) if model is not None]

    def _heads(self) -> list[Any]:
        return [model.get_output_embeddings() for model in self._models()]

    def _linear_layers(self) -> list[nn.Linear]:
        # without the heads: `LanguageHead` computes with them in float32
        heads = {id(head) for head in self._heads()}
        parts = (part for model in self._models() for part in model.modules() if id(part) not in heads)
        return [part for part in parts if isinstance(part, nn.Linear)]

    def half_precision(self) -> Any:
        """The context that the decoder runs in: autocast to bfloat16, or nothing."""
        half = self.autocast and not self._packed
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Compares `logits(states)` with the logits of the whole model in one forward pass."""
        ids = torch.arange(4, device=self.device)[None, :]
        with self.half_precision():
            whole = self.causal(input_ids=ids, use_cache=False).logits[0].float()
        if not torch.isfinite(whole).all():
            raise ModelError(
                f"the logits of {type(self.causal).__name__} are NaN or infinite: its weights are damaged",
                hint="give another checkpoint; if half precision overflows, --set policy.dtype=float32",
            )
        ours = self.logits(self.states(input_ids=ids, use_cache=False).last_hidden_state[0])
        # a loose tolerance: the two passes may use different kernels in half precision
        if not torch.allclose(whole, ours, rtol=0.05, atol=0.05 * float(whole.abs().max())):
            raise ModelError(
                f"{type(self.causal).__name__} changes its logits after the head in a way not known here",
                hint="use a Llama, Qwen, Gemma, Mistral or GPT style model as the policy",
            )


@contextlib.contextmanager
def _float32_parts(model: nn.Module, others: Sequence[nn.Module]) -> Iterator[None]:
    """Computes in float32 with all parts but some; tables of embeddings keep their type, and give float32."""
    left = {id(part) for part in others}
    parts = [part for part in model.modules() if id(part) not in left]
    tables = [part for part in parts if isinstance(part, nn.Embedding)]
    small = {
        id(weight): weight
        for part in parts
        if not isinstance(part, nn.Embedding)
        for weight in part.parameters(recurse=False)
        if weight.is_floating_point() and weight.dtype != torch.float32
    }
    kept = [(weight, weight.data) for weight in small.values()]
    hooks = [table.register_forward_hook(lambda _part, _inputs, found: found.float()) for table in tables]
    for weight, data in kept:
        weight.data = data.float()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight, data in kept:
            weight.data = data


@contextlib.contextmanager
def _fused_attention(models: Sequence[Any]) -> Iterator[None]:
    """Fused attention where the architecture supports it; Gemma 2, which caps its scores, does not."""
    usual = [(model, model.config._attn_implementation) for model in models if takes_sdpa(model)]
    for model, _ in usual:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        for model, kind in usual:
            model.set_attn_implementation(kind)


def computes_in_half(config: PolicyConfig, place: str, local_files_only: bool, device: torch.device) -> bool:
    """Whether the policy computes in bfloat16: as the settings say, or as its files and the device do."""
    if config.dtype != "auto" or not has_bfloat16(device):
        return config.dtype == "bfloat16"
    from transformers import AutoConfig

    with _loading(place):
        stored = AutoConfig.from_pretrained(
            place, local_files_only=local_files_only, trust_remote_code=False
        ).dtype
    return stored in (torch.bfloat16, torch.float16)


def _load_causal(name: str, dtype: torch.dtype, local_files_only: bool) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    with _loading(name):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            local_files_only=local_files_only,
            trust_remote_code=False,
            use_safetensors=True,
        )
    # transformers adds an adapter that lies beside a model, unasked
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{name} holds a whole model and an adapter, and it is not said which is meant",
            hint="give a folder that holds one of them",
        )
    return with_own_memory(model)


@contextlib.contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        with quiet_transformers():
            yield
    except torch.OutOfMemoryError:
        raise
    # Quantised weights need packages (ImportError) or devices (RuntimeError) that may be missing.
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "give the folder or hub id of a causal language model with safetensors weights"
        if isinstance(error, ImportError):
            hint = "install what it names, or give a policy that needs none of it, such as one not quantised"
        elif isinstance(error, RuntimeError):
            hint = "give a policy that loads on this machine, such as one not quantised"
        raise ModelError(f"no policy can be loaded from {name}: {first_line}", hint=hint) from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
