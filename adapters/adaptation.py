"""What `adapt` returns: a domain on a backbone, how it came about, and its predictions."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters.config import OUTCOME
from adapters.selection import Scores
from adapters.streaming import Stream, StreamConfig, StreamUpdate
from da_compose import Backbone, Domain, load_adapter, save_adapter
from da_compose.context import undisturbed
from da_compose.estimate import Estimate
from da_compose.inference import DomainModel
from da_compose.reading import read_images


@dataclass
class Adaptation(DomainModel):
    """The result of an adaptation: a domain on a backbone, what was learned, and how it went."""

    learned_parameters: int = 0
    scores: dict[str, Scores] = field(
        default_factory=dict
    )  # source_only, batch_norm, start, adapted
    history: list[dict[str, float]] = field(default_factory=list)
    last: Domain | None = None  # the domain after the last step, whether kept or not
    stream: Stream | None = field(default=None, repr=False)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Expected accuracy of source_only, batch_norm, start and adapted, when it was adapted.

        Empty where nothing tells (`da_compose.starts.Tried.expected`), or the images
        look like nothing the sources held.
        """
        return {name: Estimate(**found) for name, found in self.notes.get("estimates", {}).items()}

    @property
    def estimate(self) -> Estimate | None:
        """Expected accuracy of the outcome, with an interval, where there are `estimates`."""
        return self.estimates.get(OUTCOME)

    @undisturbed()
    def update(self, images: Any, **options: Any) -> StreamUpdate:
        """Follow a stream of the domain by one or more unlabelled images of any kind `adapt` takes.

        options: fields of `StreamConfig`, the same until `reset`. Statistics alone move where
        nothing was learned, unless steps=1 is asked for. `domain` becomes a copy that moves.
        """
        pixels = read_images(images, self.backbone.network.config.image_size)
        self.backbone.doubt_range(pixels)
        if self.stream is None:
            learned = {} if self.learned_parameters else {"steps": 0}
            self.stream = Stream(self.backbone, self.domain, StreamConfig(**learned | options))
            self.domain = self.stream.domain
        elif replace(self.stream.config, **options) != self.stream.config:
            raise ValueError(f"the stream goes on with {self.stream.config}; reset() it to change")
        return self.stream.update(pixels)

    def reset(self) -> None:
        """Go back to the domain as adapted, or as loaded: forget the stream."""
        if self.stream is not None:
            self.domain, self.stream = self.stream.adapted, None

    def save(self, path: str | Path) -> None:
        """Write the adapter file; after updates its notes have the last one's figures, `stream`."""
        stream = {"stream": asdict(self.stream.last)} if self.stream else {}
        save_adapter(path, self.backbone, self.domain, self.notes | stream)


def load_adaptation(path: str | Path, backbone: Backbone) -> Adaptation:
    """An adapter file as an `Adaptation`, ready to predict; refused on another backbone."""
    domain, notes = load_adapter(path, backbone)
    return Adaptation(backbone, domain, notes.get("learned_parameters", 0), notes=notes)
