"""What a request asks about, in the forms that callers send it."""

from dataclasses import dataclass

from sarm_control.conversation import Rendered, TemplatedText
from sarm_control.data import Prompt


@dataclass(frozen=True)
class PromptAndResponse:
    """A prompt and its answer, as `RewardModel.score` takes them; `ended` as its caller says."""

    prompt: Prompt
    response: str
    ended: bool = True

    def render(self, reader: TemplatedText) -> Rendered:
        """In the template's words."""
        return reader.template.render(self.prompt, self.response, ended=self.ended)


@dataclass(frozen=True)
class WholeText:
    """A prompt and its answer as one text, templated; `prompt` cuts the answer out where it is known."""

    text: str
    prompt: str | None = None

    def render(self, reader: TemplatedText) -> Rendered:
        """In the template's words."""
        return reader.render(self.text, self.prompt)


@dataclass(frozen=True)
class TextAndAnswer:
    """A prompt, plain, templated already or messages, and the answer beside it as it was generated."""

    prompt: Prompt
    response: str

    def render(self, reader: TemplatedText) -> Rendered:
        """In the template's words."""
        return reader.render_answer(self.prompt, self.response)


Conversation = PromptAndResponse | WholeText | TextAndAnswer
