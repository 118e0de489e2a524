"""The settings of a server: limits, times, and whether its controls learn."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and switches of a server.

    Args:
        model_name: what answers call the model.
        token: callers have to send it as `Authorization: Bearer TOKEN`; None lets everybody in.
        hosts: the names that the `Host` header of a request may have; None allows every name.
        batch_tokens: padded tokens of one forward pass; None is the default of the device.
        most_at_once: answers taken from the queue at a time, >= 1.
        queue: answers that may wait, >= 1; a request that finds more is refused, with a time to come back.
        timeout: seconds until a request is given up, > 0.
        cache_bytes: size of the cache of latents of conversations scored before; 0 keeps none.
        connections: how many may be open at a time, >= 1; a further one is refused.
        header_seconds: how long the headers of a request may take, > 0.
        body_bytes: the largest body of a request.
        most_answers: the most answers of a request.
        most_characters: the most characters of one conversation.
        learn: whether the human-KL term and target rates learn from the answers.
        learn_every: answers of one update, >= 2.
        state_file: what was learnt is loaded from there, and written there after every update.
        log_text: whether conversations and their rewards are written to the log.
    """

    model_name: str = "sarm"
    token: str | None = None
    hosts: frozenset[str] | None = None
    batch_tokens: int | None = None
    most_at_once: int = 256
    queue: int = 4096
    timeout: float = 60.0
    cache_bytes: int = 64 << 20
    connections: int = 4096
    header_seconds: float = 10.0
    body_bytes: int = 8 << 20
    most_answers: int = 1024
    most_characters: int = 200_000
    learn: bool = False
    learn_every: int = 256
    state_file: Path | None = None
    log_text: bool = False


DEFAULTS = ServiceSettings()
