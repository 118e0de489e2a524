"""Uploads to the hub, in one commit; every failure is one clear line.

The hub's own client does the wire. It is told its server by HF_ENDPOINT and who asks by HF_TOKEN (or what
`hf auth login` left). It retries most requests by itself; the first one, which makes the repository, is
retried here.
"""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sarm_control.errors import ConfigError, OutputError

_T = TypeVar("_T")
_WAITS = (1.0, 2.0)
_DEFAULT = "https://huggingface.co"


def upload(
    repo: str,
    files: dict[str, Path | bytes],
    *,
    public: bool = False,
    message: str,
    wait: Callable[[float], None] = time.sleep,
) -> str:
    """Makes the repository if there is none, uploads all files in one commit and returns the address of it.

    Args:
        repo: `owner/name`.
        files: path in the repository -> file, or its content.
        public: of a repository that is made now; one that exists stays as it is.
        message: of the commit.
        wait: sleeps that many seconds between tries.

    Raises:
        ConfigError: no token, or the client was told to stay offline.
        OutputError: the hub refuses, fails or cannot be reached.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # no telemetry unless the user asks for it
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    endpoint = os.environ.get("HF_ENDPOINT", _DEFAULT).rstrip("/")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("HF_HUB_OFFLINE is set: nothing can be uploaded", hint="unset it for this command")
    token = os.environ.get("HF_TOKEN") or get_token()
    if not token:
        raise ConfigError(
            "no token for the hub", hint="make one with write access and set HF_TOKEN, or type: hf auth login"
        )
    api = HfApi(endpoint=endpoint, token=token)
    operations = [
        CommitOperationAdd(
            path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
        )
        for name, content in files.items()
    ]
    # private unless it was asked for: a repository that is public by mistake
    # may be copied before it is closed
    _asked(lambda: api.create_repo(repo, private=not public, exist_ok=True), repo, endpoint, _WAITS, wait)
    with warnings.catch_warnings():
        # the ledger of a run is Parquet, which the client takes for a data set
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        # no waits of ours: the client retries the requests of a commit by itself
        done = _asked(
            lambda: api.create_commit(repo, operations, commit_message=message), repo, endpoint, (), wait
        )
    return str(done.commit_url)


def _asked(
    request: Callable[[], _T],
    repo: str,
    endpoint: str,
    waits: tuple[float, ...],
    wait: Callable[[float], None],
) -> _T:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # None stands for the last try, whose error is told
    for pause in (*waits, None):
        try:
            return request()
        except HFValidationError as error:
            raise ConfigError(
                f"{repo!r} is no repository of the hub: {_line(error)}", hint="write owner/name"
            ) from error
        except HfHubHTTPError as error:
            status = error.response.status_code
            # asking again helps where the hub fails or is busy, and nowhere else
            if pause is None or (status < 500 and status != 429):
                raise _refused(status, repo, endpoint, error) from error
        except Exception as error:
            if not _is_transport(error):
                raise
            if pause is None:
                raise OutputError(
                    f"{endpoint} cannot be reached: {_line(error)}",
                    hint="check the network and HF_ENDPOINT; nothing was uploaded",
                ) from error
        wait(pause)
    raise AssertionError("the last try returns or raises")


def _is_transport(error: Exception) -> bool:
    """Whether the server was not reached; the client's own library of HTTP changes between its versions."""
    return isinstance(error, OSError) or any(one.__name__ == "TransportError" for one in type(error).__mro__)


def _refused(status: int, repo: str, endpoint: str, error: Any) -> OutputError:
    told = {
        401: ("does not accept the token (401)", "make a token with write access and set HF_TOKEN"),
        403: (
            f"does not let this token write to {repo} (403)",
            "is the owner right, and may the token write there?",
        ),
        404: (f"has no {repo}, or hides it from this token (404)", "is the owner right?"),
        413: ("finds a file too large (413)", "see --dry-run for their sizes"),
        429: ("asks to wait: too many requests (429)", "try again in a few minutes"),
    }
    if status >= 500:
        return OutputError(f"{endpoint} fails ({status}), also when asked again", hint="try again later")
    said, hint = told.get(
        status, (f"refuses ({status}): {_line(error)}", "see --dry-run for what was to be uploaded")
    )
    return OutputError(f"{endpoint} {said}", hint=hint)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
