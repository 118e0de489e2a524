"""Conversations in the forms in which callers send them; each renders itself in a chat template."""

from dataclasses import dataclass

from sarm_control.conversation import Rendered, TemplatedText
from sarm_control.data import Prompt


@dataclass(frozen=True)
class PromptAndResponse:
    """A prompt and its answer, as `RewardModel.score` takes them; the caller knows whether it ended."""

    prompt: Prompt
    response: str
    ended: bool = True

    def render(self, reader: TemplatedText) -> Rendered:
        """The conversation in the chat template."""
        return reader.template.render(self.prompt, self.response, ended=self.ended)


@dataclass(frozen=True)
class WholeText:
    """A prompt and its answer as one templated text; the answer follows `prompt`, if that is known."""

    text: str
    prompt: str | None = None

    def render(self, reader: TemplatedText) -> Rendered:
        """The conversation in the chat template."""
        return reader.render(self.text, self.prompt)


@dataclass(frozen=True)
class TextAndAnswer:
    """A prompt (plain, templated, or messages) and the answer as it was generated."""

    prompt: Prompt
    response: str

    def render(self, reader: TemplatedText) -> Rendered:
        """The conversation in the chat template."""
        return reader.render_answer(self.prompt, self.response)


Conversation = PromptAndResponse | WholeText | TextAndAnswer
