"""The launcher's configuration, read from its environment variables; unsupported settings are refused.

ZeRO's stages say what is sharded, so that each process holds a part: from stage 2 on the gradients and
AdamW's moments, in stage 3 the weights too. PyTorch's FSDP2 does both, for a configuration of FSDP and for
one of DeepSpeed; DeepSpeed's own engine is never started.
"""

from collections.abc import Mapping
from typing import Literal

from sarm_control.errors import ConfigError

ShardingKind = Literal["none", "layers", "gradients"]

_EXAMPLES = "see examples/accelerate for what is supported"
_STAGES: dict[str, ShardingKind] = {"0": "none", "2": "gradients", "3": "layers"}
_IN_WORDS: dict[ShardingKind, str] = {
    "none": "each with the whole policy",
    "gradients": "the policy's layers sharded, whole from forward to backward pass (ZeRO-2, by FSDP2)",
    "layers": "the policy's layers sharded, whole one at a time in the update (ZeRO-3, by FSDP2)",
}
_LOADING = "(every process loads the models)"
_REFUSED_OF_FSDP = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": f"fsdp_cpu_ram_efficient_loading {_LOADING}",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing (use policy.gradient_checkpointing)",
}
_REFUSED_OF_DEEPSPEED = {
    "OFFLOAD_OPTIMIZER_DEVICE": ("offload_optimizer_device", "none"),
    "OFFLOAD_PARAM_DEVICE": ("offload_param_device", "none"),
    "ZERO3_INIT": (f"zero3_init_flag {_LOADING}", "false"),
    "CONFIG_FILE": ("deepspeed_config_file (write zero_stage in accelerate's own file)", ""),
}
_SAID_IN_THE_RUN_FILE = {
    "GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", "1", "training.micro_batch"),
    "GRADIENT_CLIPPING": ("gradient_clipping", "auto", "training.max_grad_norm"),
}


def sharding_of(environment: Mapping[str, str]) -> ShardingKind:
    """What is sharded, as the launcher's configuration says.

    Raises:
        ConfigError: the configuration asks for something unsupported, such as offloading or FSDP 1.
    """
    # what is not done is refused, not ignored: whoever set it would believe that it was done
    if _wants(environment, "ACCELERATE_USE_MEGATRON_LM"):
        raise _refusal("Megatron-LM")
    if environment.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        raise ConfigError(
            "the launcher's mixed_precision is not used",
            hint='set it to "no"; policy.dtype sets the precision',
        )
    if _wants(environment, "ACCELERATE_USE_DEEPSPEED"):
        return _of_deepspeed(environment)
    return _of_fsdp(environment) if _wants(environment, "ACCELERATE_USE_FSDP") else "none"


def in_words(environment: Mapping[str, str], count: int) -> str:
    """How `count` processes share a run: one line for the terminal."""
    line = f"{count} processes, {_IN_WORDS[sharding_of(environment)]}"
    deepspeed = _wants(environment, "ACCELERATE_USE_DEEPSPEED")
    return line + ("; DeepSpeed itself is not started" if deepspeed else "")


def check_launched_alone(environment: Mapping[str, str]) -> None:
    """Refuses a launch that started one process where several were asked for.

    `accelerate launch --cpu --num_processes 2` starts a single process, except through MPI, and reports
    nothing.

    Raises:
        ConfigError: it was started so.
    """
    by_accelerate = "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment
    if by_accelerate and _wants(environment, "ACCELERATE_USE_CPU"):
        raise ConfigError(
            "accelerate launch --cpu started one process, whatever --num_processes says",
            hint="use --multi_gpu instead of --cpu (it takes the CPU if there is no GPU), or torchrun",
        )


def _of_fsdp(environment: Mapping[str, str]) -> ShardingKind:
    for name, what in _REFUSED_OF_FSDP.items():
        if _wants(environment, name):
            raise _refusal(what)
    if environment.get("FSDP_VERSION", "2") != "2":
        raise ConfigError("sarm train does not support FSDP 1", hint=f"set fsdp_version: 2; {_EXAMPLES}")
    # layers that stay whole from forward to backward pass are what ZeRO calls stage 2
    return "gradients" if environment.get("FSDP_RESHARD_AFTER_FORWARD") == "false" else "layers"


def _of_deepspeed(environment: Mapping[str, str]) -> ShardingKind:
    for name, (what, without) in _REFUSED_OF_DEEPSPEED.items():
        if environment.get(f"ACCELERATE_DEEPSPEED_{name}", without) != without:
            raise _refusal(f"DeepSpeed setting {what}")
    for name, (what, neutral, ours) in _SAID_IN_THE_RUN_FILE.items():
        if environment.get(f"ACCELERATE_{name}", neutral) not in (neutral, "auto"):
            raise ConfigError(
                f"the launcher's {what} is not used", hint=f"remove it; {ours} in the run file sets it"
            )
    stage = environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")  # accelerate's own default
    if stage not in _STAGES:
        raise ConfigError(
            f"sarm train does not support ZeRO stage {stage} of DeepSpeed",
            hint=f"set zero_stage: 2, which shards more; {_EXAMPLES}",
        )
    return _STAGES[stage]


def _wants(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() == "true"


def _refusal(what: str) -> ConfigError:
    return ConfigError(f"sarm train does not support the launcher's {what}", hint=_EXAMPLES)
