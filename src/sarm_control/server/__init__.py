"""The reward over HTTP and on Ray.

In: requests in the forms that engines send. Out: rewards and their parts. All of them follow from one state
of the controls. It needs the extra `serve`, or `ray` for the deployment.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.server.http.app import create_app
    from sarm_control.server.http.lifecycle import address, bind, serve
    from sarm_control.server.http.problems import Refusal, install, refusal_of
    from sarm_control.server.http.security import Guard, check_bind, read_token
    from sarm_control.server.settings import ServiceSettings

_HOME_OF = {
    "Guard": "http.security",
    "Refusal": "http.problems",
    "ServiceSettings": "settings",
    "address": "http.lifecycle",
    "bind": "http.lifecycle",
    "check_bind": "http.security",
    "create_app": "http.app",
    "install": "http.problems",
    "read_token": "http.security",
    "refusal_of": "http.problems",
    "serve": "http.lifecycle",
}

_RENAMED = {
    "Settings": "ServiceSettings",
}
"""Former names, for one version."""

__all__ = [
    "Guard",
    "Refusal",
    "ServiceSettings",
    "address",
    "bind",
    "check_bind",
    "create_app",
    "install",
    "read_token",
    "refusal_of",
    "serve",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
