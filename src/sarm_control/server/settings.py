"""How a server runs: limits, times, and what it may learn."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and switches of a server.

    Args:
        model_name: what answers call the model.
        token: callers have to give it as `Authorization: Bearer TOKEN`; None asks for none.
        hosts: names a request's `Host` may have; None allows every name.
        batch_tokens: padded tokens of one forward pass; None is the model's default.
        most_at_once: answers taken from the queue at a time, >= 1.
        queue: answers that may wait, >= 1; a request that finds more is told to come back.
        timeout: seconds until a request is given up, > 0.
        cache_bytes: for latents of conversations scored before; 0 scores everything anew.
        connections: open at a time; a further one is told to come back, >= 1.
        header_seconds: that the headers of a request may take, > 0.
        body_bytes: of a request at most.
        most_answers: of a request at most.
        most_characters: of one text at most.
        learn: whether the human-KL term and target rates learn from what is answered.
        learn_every: answers they learn from at a time, >= 2.
        state_file: what was learnt is taken up from there, and kept there after every lesson.
        log_text: write conversations and their rewards to the log.
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
