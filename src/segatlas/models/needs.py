"""What a network needs from others. Holds no torch: the table of architectures says it, and so does each record."""

from __future__ import annotations

from dataclasses import dataclass

from segatlas.structures import InputSpec


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a network needs besides an image.

    inputs: sources that it takes besides the image; a dataset's others never reach it.
    targets: names of the types of truth that its training reads, of `segatlas.structures`: that of each of its tasks.
    host: of a wrapper, a network around another: names of the types of output that the other one may give; None
        otherwise. A wrapper takes the sources that its host takes, too.
    targets_in_forward: while training, `forward` takes the truths and the images' own sizes behind the inputs: which
        boxes its losses are taken of is drawn inside. Without them it gives what it gives in prediction.
    losses: names of the losses that it trains with, where a recipe names none and for which it may name: those whose
        input only this network makes. Empty = those of its output's type.
    further_losses: names of losses that a recipe may name besides `losses`.
    taught_by: (loss, auxiliary logits that it is on) of each part that predicts and that no loss on the output teaches.
    example_host: of a wrapper, a network that it can wrap, around which it is described.
    from_config: its config says what it takes besides the image, in `source_specs()`: users name the sources.
    classes_less: of a wrapper, how many logits its host gives fewer than there are classes.
    """

    inputs: tuple[InputSpec, ...] = ()
    targets: tuple[str, ...] = ("SemanticTarget",)
    host: tuple[str, ...] | None = None
    targets_in_forward: bool = False
    losses: tuple[str, ...] = ()
    further_losses: tuple[str, ...] = ()
    taught_by: tuple[tuple[str, str], ...] = ()
    example_host: str = "unet"
    from_config: bool = False
    classes_less: int = 0
