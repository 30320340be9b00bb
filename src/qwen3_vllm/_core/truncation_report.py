"""What was cut from the texts of a call, and the one warning that says so. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Truncation:
    """Texts cut to a server's context.

    Attributes:
        cut: How many were cut.
        perhaps: How many more the server itself may have cut: it does not count their tokens for us.
        longest: Tokens of the longest that was cut.
        limit: Tokens that they were cut to.
    """

    cut: int = 0
    perhaps: int = 0
    longest: int = 0
    limit: int = 0

    def __bool__(self) -> bool:
        return bool(self.cut or self.perhaps)

    def __add__(self, other: "Truncation") -> "Truncation":
        return Truncation(
            self.cut + other.cut,
            self.perhaps + other.perhaps,
            max(self.longest, other.longest),
            max(self.limit, other.limit),
        )

    def of_texts(self, total: int, noun: str) -> str:
        """Say it of `total` texts; `noun` is their plural."""
        said = []
        if self.cut:
            said.append(
                f"{self.cut} of {total} {noun} were cut to the server's {self.limit} tokens; the longest had "
                f"{self.longest}"
            )
        if self.perhaps:
            said.append(
                f"up to {self.perhaps} of {total} {noun} may have been cut by the server to its {self.limit} "
                "tokens; it has no /tokenize to count them with"
            )
        return "; ".join(said)

    def of_prompts(self, total: int) -> str:
        """Say it of documents whose prompts were too long."""
        return (
            f"{self.cut} of {total} documents were cut so that their prompts fit the server's {self.limit} "
            f"tokens; the longest prompt had {self.longest}"
        )
