"""A row's string taken apart into placeholder, instruction and text, and put together again byte for byte."""

from dataclasses import dataclass

PLACEHOLDER = "<|image_1|>"


@dataclass(frozen=True)
class Prompt:
    """The pieces of a row's string, in order; `str()` joins them to the very bytes that they were taken from.

    `head` is the placeholder with the white space behind it, `joint` the white space between instruction and text,
    `tail` the newline at the end.
    """

    head: str = ""
    instruction: str = ""
    joint: str = ""
    text: str = ""
    tail: str = ""

    def __str__(self) -> str:
        return self.head + self.instruction + self.joint + self.text + self.tail

    @classmethod
    def compose(cls, instruction: str, text: str, *, placeholder: bool, tail: str) -> "Prompt":
        """Write a prompt the way MMEB-eval does: placeholder, newline, instruction, space, text, newline."""
        head = PLACEHOLDER + "\n" if placeholder else ""
        joint = " " if instruction and text else ""
        return cls(head, instruction, joint, text, tail)

    @classmethod
    def parse(cls, prompt: str, instruction: str) -> "Prompt":
        """Take a row's string apart.

        Where it does not start with `instruction`, the result has none and its text is the full string without the
        placeholder: `Prompt.instruction` tells rows of another wording from the rest.
        """
        head, body = "", prompt
        if body.startswith(PLACEHOLDER):
            rest = body[len(PLACEHOLDER) :]
            body = rest.lstrip()
            head = prompt[: len(prompt) - len(body)]
        if not instruction or not body.startswith(instruction):
            return cls(head=head, text=body)
        rest = body[len(instruction) :]
        tail = "\n" if rest.endswith("\n") else ""
        rest = rest[: len(rest) - len(tail)]
        text = rest.lstrip()
        return cls(head, instruction, rest[: len(rest) - len(text)], text, tail)
