"""Calls to a server of `sarm serve`, made as OpenRLHF, verl and slime make them."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sarm_control.conversation import ChatTemplate
from sarm_control.data import Message, as_messages
from sarm_control.engines import openrlhf, verl
from sarm_control.engines.doctor.examination import Adapter, Call, DoctorSample
from sarm_control.engines.server_client import LEARN, TOKEN_FILE, URL, ServerSettings, post


@dataclass(frozen=True)
class ServerPlace:
    """The address of the server, and the policy whose text it is sent.

    Args:
        url: without a path.
        token_file: the file of its token.
        template: chat template of the policy; the text that an engine sends depends on it.
    """

    url: str
    token_file: str | None
    template: ChatTemplate

    def post(self, path: str, payload: dict[str, Any]) -> Any:
        """The JSON of the server's answer. It does not wait for a server that is down."""
        return post(ServerSettings.from_environment(**self.settings()), path, payload)

    def settings(self) -> dict[str, Any]:
        """Settings for functions of engines that take them; nothing is learnt from the built-in answers."""
        # a training waits for a server that comes back; who asks the doctor wants to know that it is
        # down
        once = {"timeout": 60.0, "patience": 1e-9, "learn": False}
        return {"url": self.url, "token_file": self.token_file, **once}

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Sets the environment for functions of engines that read it."""
        values = {URL: self.url, TOKEN_FILE: self.token_file, LEARN: "false"}
        # put back afterwards: whoever calls the doctor from a program keeps the environment of its own server
        before = {name: os.environ.get(name) for name in values}
        _set_environment(values)
        try:
            yield
        finally:
            _set_environment(before)


@dataclass(frozen=True)
class OpenRlhf:
    """The request of `openrlhf/utils/agent.py` in 0.11: one answer, decoded from its policy's tokens."""

    place: ServerPlace
    name: str = "--reward.remote_url URL/get_reward"
    reports_end: bool = True

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A request for each answer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: DoctorSample) -> Call:
        prompt, query = _prompt(self.place.template, sample), _decoded(self.place.template, sample)
        sent = {"query": [query], "prompts": [prompt], "labels": ["a label"]}
        got = self.place.post("/get_reward", sent)
        return Call({"POST": "/get_reward", **sent}, got, (_number(got["rewards"]),), got["extra_logs"])


@dataclass(frozen=True)
class OpenRlhfFile:
    """The `.py` file of OpenRLHF, called in this process: one answer a call."""

    place: ServerPlace
    name: str = "--reward.remote_url .../sarm_control/engines/openrlhf.py"
    reports_end: bool = True

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A call for each answer."""
        with self.place.environment():
            return [self._call(sample) for sample in samples]

    def _call(self, sample: DoctorSample) -> Call:
        prompt, query = _prompt(self.place.template, sample), _decoded(self.place.template, sample)
        got = openrlhf.reward_func([query], [prompt], ["a label"])
        sent = {"queries": [query], "prompts": [prompt], "labels": ["a label"]}
        return Call(sent, got, (_number(got["rewards"]),), got["extra_logs"])


@dataclass(frozen=True)
class VerlFunction:
    """`reward.custom_reward_function` of verl 0.9: the prompt in `extra_info`, no end token."""

    place: ServerPlace
    name: str = "custom_reward_function: sarm_control.engines.verl, compute_score"
    reports_end: bool = False

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A call for each answer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: DoctorSample) -> Call:
        sent: dict[str, Any] = {
            "data_source": "lab",
            "solution_str": sample.response,
            "ground_truth": "",
            "extra_info": {"raw_prompt": [dict(turn) for turn in as_messages(sample.prompt)]},
        }
        got = verl.compute_score(**sent, **self.place.settings())
        logs = {name: value for name, value in got.items() if name != "score"}
        return Call(sent, got, (_number(got["score"]),), logs)


@dataclass(frozen=True)
class VerlModel:
    """The discriminative reward model of verl: the whole conversation, templated, without begin-of-text.

    Args:
        path: `/classify` as vLLM has it, or `/v1/embeddings` as SGLang has it.
    """

    place: ServerPlace
    path: str
    reports_end: bool = False

    @property
    def name(self) -> str:
        """The route, and the engine whose form it has."""
        return f"reward.reward_model, {'vLLM' if self.path == '/classify' else 'SGLang'}: URL{self.path}"

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A request for each answer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: DoctorSample) -> Call:
        answer = Message(role="assistant", content=sample.response)
        text = self.place.template.words([*as_messages(sample.prompt), answer])
        bos = self.place.template.tokenizer.bos_token
        # verl tokenizes the text again and adds the begin-of-text itself
        sent: dict[str, Any] = {"model": "sarm", "input": text.removeprefix(bos or "")}
        if self.path == "/classify":
            sent["activation"] = False
        got = self.place.post(self.path, sent)
        last = got["data"][-1]
        # the last number of the last item, which is where verl's reward loop reads the score of either engine
        values = last["probs"] if self.path == "/classify" else last["embedding"]
        return Call({"POST": self.path, **sent}, got, (_number(values[-1]),), {})


@dataclass(frozen=True)
class Slime:
    """`remote_rm` of slime: the prompt as in its data, and the answer with its stop token."""

    place: ServerPlace
    name: str = "--rm-type remote_rm --rm-url URL/rm"
    reports_end: bool = True

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A request for each answer."""
        return [self._call(sample) for sample in samples]

    def _call(self, sample: DoctorSample) -> Call:
        response = _answer(self.place.template, sample)
        sent = {"prompt": _prompt(self.place.template, sample), "response": response, "label": "a label"}
        got = self.place.post("/rm", sent)
        return Call({"POST": "/rm", **sent}, got, (_number(got),), {})


def adapters(engine: str, place: ServerPlace) -> list[Adapter]:
    """The ways an engine can ask a server: `openrlhf`, `verl` or `slime`."""
    known: dict[str, list[Adapter]] = {
        "openrlhf": [OpenRlhf(place), OpenRlhfFile(place)],
        "verl": [VerlFunction(place), VerlModel(place, "/classify"), VerlModel(place, "/v1/embeddings")],
        "slime": [Slime(place)],
    }
    return known[engine]


def _prompt(template: ChatTemplate, sample: DoctorSample) -> str:
    """The prompt as the policy read it: messages are templated, plain prompts stay as they are."""
    if isinstance(sample.prompt, str):
        return sample.prompt
    return template.words(as_messages(sample.prompt), generation=True)


def _answer(template: ChatTemplate, sample: DoctorSample) -> str:
    end = template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    return f"{sample.response} {end}" if sample.ended else sample.response


def _decoded(template: ChatTemplate, sample: DoctorSample) -> str:
    """Prompt and answer as ids and back, which is what OpenRLHF sends."""
    text = f"{_prompt(template, sample)} {_answer(template, sample)}"
    # there and back, because decoding need not give the text that was encoded (spaces, special tokens), and
    # the server has to find prompt and answer in what comes out
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(template.tokenizer.decode(ids, skip_special_tokens=False))


def _number(value: Any) -> float:
    """The value as an engine reads it; NaN for what it cannot train on, such as a string or a list."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
