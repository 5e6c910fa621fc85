"""What spaces of language models share: the layers before and after the recurrent ones."""

from __future__ import annotations

from pydantic import Field

from hwnas.errors import UserInputError
from hwnas.graph import Graph, GraphBuilder, Value
from hwnas.registry import PluginConfig


class LanguageConfig(PluginConfig):
    """Settings of the layers around a recurrent network."""

    hidden: int = Field(64, ge=1, description="H: size of the state and of the output")
    embedding: int | None = Field(
        None, ge=1, description="size of the embedding; null: that of the output"
    )
    tied: bool = Field(True, description="the last layer's weight is the embedding (one size)")
    decoder_bias: bool = Field(True, description="whether the last layer has a bias")
    bound: float | None = Field(
        0.04, gt=0, description="weights start uniformly in ± this; null: N(0, 2 / fan-in)"
    )
    word_dropout: float = Field(0.0, ge=0, lt=1, description="share of words dropped everywhere")
    embedding_dropout: float = Field(
        0.0, ge=0, lt=1, description="variational dropout of the embedding (enas_lm: drop_i)"
    )
    input_dropout: float = Field(
        0.0, ge=0, lt=1, description="variational dropout of the recurrent network's input"
    )
    output_dropout: float = Field(0.0, ge=0, lt=1, description="variational dropout of its output")
    weight_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout of the state's matrix, once a forward pass"
    )
    penalised: str = Field(
        "dropped",
        pattern="^(dropped|raw)$",
        description="what train.optimiser.activation_penalty looks at: the output after its "
        "dropout (AWD-LSTM), or before (raw: enas_lm)",
    )


def check_tied(config: LanguageConfig) -> None:
    """Refuse sizes that cannot be tied.

    Raises:
        UserInputError: Embedding and output differ but are tied.
    """
    if config.tied and config.embedding not in (None, config.hidden):
        raise UserInputError(
            f"space: an embedding of {config.embedding} cannot be tied to a last layer of "
            f"{config.hidden}",
            "leave embedding out, or set tied: false",
        )


def embed(g: GraphBuilder, config: LanguageConfig, vocabulary: int) -> Value:
    """Add the embedding of the tokens with its dropouts; returns (T, E)."""
    x = g.embedding(
        g.input,
        vocabulary=vocabulary,
        width=config.embedding or config.hidden,
        dropout=config.word_dropout,
        bound=config.bound,
        weights="embedding",
    )
    return _dropped(g, _dropped(g, x, config.embedding_dropout), config.input_dropout)


def predict(
    g: GraphBuilder, config: LanguageConfig, vocabulary: int, output: Value, state: Value
) -> Graph:
    """Add the last layer to a recurrent network's output (T, H), and finish the graph.

    The outputs are those that `hwnas.supernet.tasks.language_model` expects: logits, state, and the
    two sequences for the regularisation of activations.
    """
    dropped = _dropped(g, output, config.output_dropout)
    logits = g.linear(
        dropped,
        features=vocabulary,
        bias=config.decoder_bias,
        bound=config.bound,
        weights="embedding" if config.tied else "decoder",
    )
    penalised = dropped if config.penalised == "dropped" else output
    return g.finish(logits, state, penalised, output)


def _dropped(g: GraphBuilder, x: Value, rate: float) -> Value:
    return g.locked_dropout(x, rate=rate) if rate else x
