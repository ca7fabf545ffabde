"""Text while it is being written: ids -> pieces of whole characters, and pieces -> pieces that stop in time."""

from collections.abc import Sequence

from openjanus.processing.tokenizer import Tokenizer

BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet one
# Tokens decoded again with each new one. A character spans at most 4; byte-fallback decoders break whole runs of them.
WINDOW = 16
PATIENCE = 32  # tokens that may end in broken characters before they are taken as broken for good


class IncrementalDecoder:
    """Ids in, text out: the pieces joined are `tokenizer.decode` of all ids, and none ends within a character.

    Each id costs a decoding of a few tokens, however long the text has become.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the last ids; earlier ones are told
        self._told = 0  # characters of the window's text that are out already
        self._whole = 0  # ids of the window after which no character was open

    def push(self, id: int) -> str:
        """The text that this id settles, often empty."""
        if self._tokenizer.is_special(id):
            return ""
        self._window.append(id)
        text = self._tokenizer.decode(self._window)
        settled = text.rstrip(BROKEN)
        if settled == text:
            piece = self._tell(text)
            self._shorten(keep_from=self._whole)
            self._whole = len(self._window)
            return piece
        if len(self._window) - self._whole < PATIENCE:
            return self._tell(settled)
        # An untrained model may write broken bytes for ever. Only the last broken character can still become a whole one.
        piece = self._tell(text[:-1])
        self._window = self._window[-4:]
        self._told, self._whole = max(0, len(self._tokenizer.decode(self._window)) - 1), 0
        return piece

    def flush(self) -> str:
        """What was held back, broken or not; the decoder is then as new."""
        piece = self._tell(self._tokenizer.decode(self._window))
        self._window, self._told, self._whole = [], 0, 0
        return piece

    def _tell(self, text: str) -> str:
        piece = text[self._told :]
        self._told = max(self._told, len(text))
        return piece

    def _shorten(self, keep_from: int) -> None:
        """Forget ids before one where no character was open; what is kept starts decoding as the whole did (a leading space)."""
        if len(self._window) > WINDOW and 0 < keep_from < len(self._window):
            self._window = self._window[keep_from:]
            self._told = len(self._tokenizer.decode(self._window))


class StopStrings:
    """Pieces in, pieces out, up to the first stop string; what may turn into one is held back until it is known.

    The text is cut before the stop string that is complete first, so it does not depend on how it came in pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """The text that is safe to show; empty once stopped."""
        if self.stopped:
            return ""
        self._held += piece
        starts = ((self._held.find(stop), len(stop)) for stop in self._stops)
        found = [(start + length, start) for start, length in starts if start >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)[1]], ""
            return text
        safe = len(self._held) - self._undecided()
        text, self._held = self._held[:safe], self._held[safe:]
        return text

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        text, self._held = self._held, ""
        return text

    def _undecided(self) -> int:
        """Characters at the end that are the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
