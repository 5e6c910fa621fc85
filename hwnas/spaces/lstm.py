"""Language models of LSTM layers: what a searched cell is compared with."""

from __future__ import annotations

from pydantic import Field

from hwnas.graph import Graph, GraphBuilder, Pick, Shape
from hwnas.spaces import SPACES, SearchSpace
from hwnas.spaces._language import LanguageConfig, check_tied, embed, predict


@SPACES.register("lstm")
class LstmStack(SearchSpace):
    """Language models of LSTM layers, with the layers around them of `enas_rnn`.

    Only the number of layers is picked; all have the size of the output.
    """

    class Config(LanguageConfig):
        """Settings of `lstm`."""

        most_layers: int = Field(3, ge=1, le=8, description="most layers")
        layer_dropout: float = Field(
            0.0, ge=0, lt=1, description="variational dropout between layers"
        )

    config: Config
    task = "language_model"

    def __init__(self, config: Config, input_shape: Shape, classes: int) -> None:
        check_tied(config)
        super().__init__(config, input_shape, classes)

    def build(self, pick: Pick) -> Graph:
        """Stack the layers; the states of all of them are carried as one."""
        c = self.config
        layers = pick.integer("layers", 1, c.most_layers)
        g = GraphBuilder(self.input_shape, dtype="int64")
        x = embed(g, c, self.classes)
        carried = g.carried(g.input, name="state", size=(2 * layers, c.hidden))
        steps, states = self.input_shape[0], []
        for layer in range(layers):
            if layer and c.layer_dropout:
                x = g.locked_dropout(x, rate=c.layer_dropout)
            both = g.lstm(
                x,
                g.slice(carried, axis=0, start=2 * layer, stop=2 * layer + 2),
                hidden=c.hidden,
                weight_dropout=c.weight_dropout,
                with_state=True,
                bound=c.bound,
                weights=f"lstm{layer}",
            )
            x = g.slice(both, axis=0, start=0, stop=steps)
            states.append(g.slice(both, axis=0, start=steps, stop=steps + 2))
        state = states[0] if layers == 1 else g.join(*states, axis=0)
        return predict(g, c, self.classes, x, state)
