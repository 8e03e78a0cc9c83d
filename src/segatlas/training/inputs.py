"""Which statistics normalise the images of a run, and where they come from.

What the recipe states in `model.input` counts; else those that the weights were trained with, which the run begins
with; else ImageNet's. Whoever trains is told which it is, and where two of them disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from segatlas.build.encoder_weights import is_published, published_statistics
from segatlas.checkpoint.card import Card
from segatlas.checkpoint.preprocessing import Preprocessing, default_preprocessing
from segatlas.config.schema import InputConfig, ModelConfig
from segatlas.models.host import encoder_of
from segatlas.recipe import Config
from segatlas.training.logbook import LOGGER

CLOSE = 2e-3
"""Statistics that differ by less are the same ones, rounded."""


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What a run trains: network, where its weights come from, and what its images are normalised with.

    encoder: name, or None for a network without a named one; mean and std: per channel, of values / max_value;
    statistics: where mean and std come from, in words.
    """

    model: str
    architecture: str
    encoder: str | None
    weights: str
    parameters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: float
    statistics: str

    def lines(self) -> list[str]:
        """Return the facts as printed."""
        variant = "" if self.model == self.architecture else f" ({self.architecture})"
        encoder = f"encoder {self.encoder}" if self.encoder else "no named encoder"
        return [
            f"network: {self.model}{variant}, {encoder}, {self.parameters / 1e6:.2f} M parameters",
            f"weights at the start: {self.weights}",
            f"input: mean {_numbers(self.mean)}, std {_numbers(self.std)} of values / {self.max_value:g}: "
            f"{self.statistics}",
        ]


@dataclass(frozen=True, kw_only=True)
class Known:
    """Preprocessing that weights were trained with, and how it is called in words. sure: False where it is a guess."""

    preprocessing: Preprocessing
    words: str
    sure: bool


def choose_preprocessing(
    model: ModelConfig, net: nn.Module, channels: int, card: Card | None, root: str | None
) -> tuple[Preprocessing, str]:
    """Return the card's preprocessing, and in words where its mean and std come from.

    Args:
        model: the recipe's section.
        net: the network that it makes.
        channels: channels of the images.
        card: that of `model.start_from`, where it has one.
        root: folder of the dataset, for advice.
    """
    known, given = _known(model, net, channels, card), model.input
    if card is not None:
        _tell_overruled(_filled(given, card.preprocessing), card.preprocessing, model.start_from)
    if given.mean is None or given.std is None:
        if channels not in (1, 3) and card is None:
            _tell_further_channels(known.preprocessing, root)
        return _filled(given, known.preprocessing), known.words
    ours = Preprocessing(mean=given.mean, std=given.std)
    if known.sure and not _same(ours, known.preprocessing):
        LOGGER.warning(
            "the recipe states mean %s, std %s; the weights were trained with mean %s, std %s (%s). The recipe counts; "
            "leave model.input.mean and std out to take the others",
            *map(_numbers, (ours.mean, ours.std, known.preprocessing.mean, known.preprocessing.std)), known.words,
        )  # fmt: skip
    return _filled(given, known.preprocessing), "the recipe's"


def _known(model: ModelConfig, net: nn.Module, channels: int, card: Card | None) -> Known:
    """Return what is known of the images that the run's first weights were trained with."""
    if card is not None:
        return Known(preprocessing=card.preprocessing, words=f"those of {model.start_from}", sure=True)
    if model.start_from:
        words = f"ImageNet's; {_does_not_tell(model.start_from)}"
        return Known(preprocessing=default_preprocessing(channels), words=words, sure=False)
    if model.encoder_weights is None:
        return Known(preprocessing=default_preprocessing(channels), words="ImageNet's, the default", sure=False)
    published = default_preprocessing(channels, *published_statistics(net, model.encoder_weights))
    if is_published(model.encoder_weights):
        return Known(preprocessing=published, words="those that the encoder's weights were trained with", sure=True)
    words = f"those of the published weights of {encoder_name(net)}; {_does_not_tell(model.encoder_weights)}"
    return Known(preprocessing=published, words=words, sure=False)


def _does_not_tell(file: str) -> str:
    return f"{Path(file).name} does not tell its own: where it was trained with others, state model.input.mean and std"


def _filled(given: InputConfig, known: Preprocessing) -> Preprocessing:
    """Return the preprocessing where the keys that the recipe states, at their defaults too, lie over `known`."""
    stated = given.model_fields_set
    return Preprocessing(
        mean=given.mean or known.mean,
        std=given.std or known.std,
        max_value=given.max_value if "max_value" in stated else known.max_value,
        resize=given.resize if "resize" in stated else known.resize,
    )


def as_taken(config: Config, taken: Preprocessing, encoder_weights: str | None = None) -> Config:
    """Return a recipe that states what a run takes from its first weights, as its config.yaml should.

    taken: from their card. encoder_weights: those that were found, where the recipe says "auto".
    """
    if config.model.encoder_weights == "auto":
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"encoder_weights": encoder_weights})}
        )
    given = config.model.input
    changed = {
        key: getattr(taken, key) for key in ("max_value", "resize") if getattr(taken, key) != getattr(given, key)
    }
    if not changed:
        return config
    model = config.model.model_copy(update={"input": given.model_copy(update=changed)})
    return config.model_copy(update={"model": model})


def _tell_overruled(taken: Preprocessing, earlier: Preprocessing, start: str | None) -> None:
    """Say where a run begins with weights that were trained on other values or another size."""
    for key in ("max_value", "resize"):
        ours, theirs = getattr(taken, key), getattr(earlier, key)
        if ours != theirs:
            LOGGER.warning(
                "the recipe states model.input.%s = %s; %s was trained with %s. The recipe counts; leave the key out "
                "to take the other",
                key, _stated(ours), start, _stated(theirs),
            )  # fmt: skip


def _stated(value: float | str | None) -> str:
    return "null" if value is None else value if isinstance(value, str) else f"{value:g}"


def _tell_further_channels(taken: Preprocessing, root: str | None) -> None:
    first = "channels 1 to 3 are taken for R, G and B, " if len(taken.mean) > 3 else ""
    LOGGER.warning(
        "the images have %d channels, and the recipe states no mean and std: %seach %schannel gets mean %g and std %g. "
        "Measure them: segatlas data stats %s",
        len(taken.mean), first, "further " if first else "", taken.mean[-1], taken.std[-1], root or "ROOT",
    )  # fmt: skip


def _same(one: Preprocessing, other: Preprocessing) -> bool:
    pairs = zip((*one.mean, *one.std), (*other.mean, *other.std), strict=False)
    return len(one.mean) == len(other.mean) and all(abs(a - b) < CLOSE for a, b in pairs)


def encoder_name(net: nn.Module) -> str | None:
    """Return the name of a network's encoder, or None."""
    spec = encoder_of(net.config)
    return None if spec is None else str(spec)


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
