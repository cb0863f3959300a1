"""What the command says in one sentence, before it stops."""

from __future__ import annotations


class GradingError(Exception):
    """Something that the teacher must decide or mend; the message is a sentence for them."""
