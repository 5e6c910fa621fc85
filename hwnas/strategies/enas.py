"""ENAS: an LSTM controller trained with REINFORCE.

Source: Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing", and the
authors' code (https://github.com/melodyguan/enas): `micro_controller.py`, `general_controller.py`
(macro) and `utils.py`. The equations are in `_controller.py` and `_reinforce.py`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hwnas.errors import UserInputError, nearest
from hwnas.graph.architecture import Architecture
from hwnas.graph.pick import Decision
from hwnas.registry import PluginConfig
from hwnas.strategies import STRATEGIES, Scored, Strategy, StrategyState

if TYPE_CHECKING:
    from hwnas.spaces import SearchSpace
    from hwnas.strategies._learner import Learner

SEP_CONVS = ("sep_conv_3x3", "sep_conv_5x5")
CHEAP_OPS = ("avg_pool_3x3", "max_pool_3x3", "identity")

#: The settings of the authors' scripts: ``Enas.Config(**PUBLISHED["micro"])``.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "micro": {
        "lr": 3.5e-3,
        "tanh_constant": 1.10,
        "op_tanh_reduce": 2.5,
        "samples_per_update": 10,
        "adam_epsilon": 1e-3,
        "adam_form": "tensorflow",
        "baseline_start": "zero",
        "initial_bias": dict.fromkeys(SEP_CONVS, 10.0),
        "constant_bias": {
            "normal": dict.fromkeys(SEP_CONVS, 0.25) | dict.fromkeys(CHEAP_OPS, -0.25)
        },
    },
    "macro": {
        "lr": 1e-3,
        "tanh_constant": 1.5,
        "op_tanh_reduce": 1.0,
        "samples_per_update": 20,
        "adam_epsilon": 1e-3,
        "adam_form": "tensorflow",
        "baseline_start": "zero",
        "entropy_form": "action",
        "has_bias": False,
        "skip_target": 0.4,
        "skip_weight": 0.8,
        "skip_form": "sigmoid",
    },
    "language": {  # google-research/enas_lm, the corrected code; for enas_rnn
        "lr": 5e-5,
        "init_range": 0.01,
        "temperature": 5.0,
        "tanh_constant": 2.25,
        "has_bias": False,
        "tied_embedding": True,
        "anchors": "at_input",
        "distance_penalty": 6.0,
        "samples_per_update": 10,
        "adam_beta1": 0.9,
        "adam_form": "tensorflow",
        "entropy_weight": 1e-5,
        "entropy_form": "action",
        "baseline_decay": 0.999,
        "baseline_start": "zero",
    },
}


@STRATEGIES.register("enas")
class Enas(Strategy):
    """ENAS: an LSTM controller with attention over earlier nodes, trained with REINFORCE.

    Works with every space, fixed or conditional. For the micro, macro and recurrent spaces,
    `PUBLISHED` holds the settings under which the controller is the published one, step by step.
    Those are for a search of 45,000 samples (micro); the defaults are for the hundreds or few
    thousands that a search on one machine affords. They are the micro settings except:

    - ``tanh_constant`` 2.5 and ``op_tanh_reduce`` 1: the authors' 1.10 and 2.5 bound the policy,
      for one op of five, to a probability of 38 %. Ours are from trials on a synthetic space with
      a noisy reward (2 cells of 3 nodes, 600 samples, 4 seeds): together with the epsilon below,
      the mean reward of what was sampled rose by 0.11, and not at all with the published
      settings; `best_guess` was about as good with either (0.62 and 0.61).
    - ``adam_epsilon`` 1e-8: at 1e-3, which is above most gradients here, the weights hardly move
      in that many samples; more so in TensorFlow's reading of epsilon (``adam_form``).
    - ``baseline_start``: the authors' baseline starts at 0 and needs a few hundred samples to reach
      the reward; until then every sampled architecture is pushed up. Ours starts at the first
      reward.
    - ``initial_bias``, ``constant_bias``: the authors prefer separable convolutions from the
      start. (Their trainable bias of 10 is behind a tanh with a slope of 1e-8 there: it never
      moves.) A preference belongs to a space, so there is none by default.

    As published: `samples_per_update` gradients of one policy are averaged (the authors' replicas
    through `SyncReplicasOptimizer`), and the baseline moves with every single sample.

    Not implemented because the authors' code never uses it: stacked LSTM layers and their dropout,
    learning-rate decay, a critic.
    """

    class Config(PluginConfig):
        """Settings of `enas`; names and defaults are explained in the class."""

        lstm_size: int = Field(64, ge=1, description="units of the LSTM and of all embeddings")
        init_range: float = Field(
            0.1, gt=0, description="weights start uniformly in ± this (enas_lm: 0.01)"
        )
        dtype: Literal["float32", "float64"] = Field(
            "float32", description="precision of the controller"
        )

        temperature: float | None = Field(
            None, gt=0, description="logits are divided by this (PTB: 5); none: not at all"
        )
        tanh_constant: float | None = Field(
            2.5,
            gt=0,
            description="logits become this × tanh(logits), which bounds the policy (micro: 1.10, "
            "macro: 1.5, PTB: 2.5); none: unbounded",
        )
        op_tanh_reduce: float = Field(
            1.0,
            gt=0,
            description="tanh_constant is divided by this for one_of and integer (micro: 2.5)",
        )
        has_bias: bool = Field(
            True, description="trainable bias on the logits of one_of and integer (macro: no)"
        )
        tied_embedding: bool = Field(
            False,
            description="whether the embedding of the options also gives their logits (enas_lm)",
        )
        anchors: Literal["after", "at_input"] = Field(
            "after",
            description="what stands for a node: the output of the LSTM after its last answer "
            "(micro), or the one that picks its input (enas_lm)",
        )
        distance_penalty: float | None = Field(
            None,
            gt=0,
            description="predecessor: the logit of a node loses its squared distance over this, "
            "and its anchor is divided by 0.1 + distance (enas_lm: 6, the authors' PTB code: 12); "
            "none: neither",
        )
        initial_bias: dict[str, float] = Field(
            default_factory=dict,
            description="start of the trainable bias by option; 0 where not named "
            "(micro: 10 for both separable convolutions)",
        )
        constant_bias: dict[str, dict[str, float]] = Field(
            default_factory=dict,
            description="added to the logits after the tanh, by scope (the first part of the "
            "pick's name, such as normal) and option (micro: ±0.25 in the normal cell)",
        )

        samples_per_update: int = Field(
            10, ge=1, description="trials averaged in one step of the optimiser (macro: 20)"
        )
        lr: float = Field(3.5e-3, gt=0, description="Adam: learning rate (macro: 1e-3)")
        adam_beta1: float = Field(0.0, ge=0, lt=1, description="Adam: decay of the mean")
        adam_beta2: float = Field(0.999, ge=0, lt=1, description="Adam: decay of the square")
        adam_epsilon: float = Field(
            1e-8, gt=0, description="Adam: added to the denominator (the authors': 1e-3)"
        )
        adam_form: Literal["paper", "tensorflow"] = Field(
            "paper", description="Adam: where epsilon is added (the authors': tensorflow)"
        )
        grad_clip: float | None = Field(
            None, gt=0, description="joint norm to which gradients are clipped; none: not at all"
        )

        entropy_weight: float = Field(1e-4, ge=0, description="weight of the policy's entropy")
        entropy_form: Literal["policy", "action"] = Field(
            "policy", description="entropy of the policy, or −p log p of the sampled answer (macro)"
        )
        entropy_in: Literal["reward", "loss"] = Field(
            "reward",
            description="part of the reward, without a gradient of its own (the authors'), or a "
            "regulariser in the loss",
        )
        baseline_decay: float = Field(
            0.99, ge=0, lt=1, description="decay of the moving average of rewards"
        )
        baseline_start: Literal["zero", "first_reward"] = Field(
            "first_reward", description="where the average starts (the authors': zero)"
        )
        baseline_every: int | None = Field(
            None,
            ge=1,
            description="updates after which the average starts anew (the PyTorch port: those of "
            "an epoch); none: never",
        )
        baseline_before_advantage: bool = Field(
            True,
            description="move the average before the advantage is taken (the authors'), which "
            "scales advantages by baseline_decay, or after",
        )

        skip_weight: float = Field(
            0.0, ge=0, description="weight of the skip penalty for predecessors picks (macro: 0.8)"
        )
        skip_target: float = Field(
            0.4, gt=0, lt=1, description="share of skips that the penalty pulls towards"
        )
        skip_form: Literal["probability", "sigmoid"] = Field(
            "probability",
            description="the penalty is KL(p ‖ target) of the skip probability p (the paper), or "
            "of σ(logit), which is not p (the authors' code)",
        )

    config: Config

    def __init__(self, config: Config, space: SearchSpace, seed: int) -> None:
        super().__init__(config, space, seed)
        if self._fixed is not None:
            _check_names(config, self._fixed)

    @property
    def group_size(self) -> int:
        """The number of trials averaged in one step of the optimiser."""
        return self.config.samples_per_update

    def best_guess(self) -> Architecture:
        """Return the architecture that takes the most likely answer at every decision."""
        return self._realise(self._learner.policy.most_likely(), self._learned)

    def diagnostics(self) -> dict[str, float]:
        """Return numbers of the last update; empty before the first.

        ``updates`` counts them; ``reward``, ``log_prob`` and ``entropy`` (nats a decision, of the
        policy) are means over the group; ``baseline``; ``advantage`` is the mean magnitude;
        ``gradient_norm`` is taken before clipping.
        """
        return dict(self._learner.diagnostics)

    def _propose(self, trial_id: int, rng: random.Random) -> Architecture:
        return self._realise(self._learner.policy.sample(rng), trial_id)

    def _learn(self, group: Sequence[Scored]) -> None:
        samples = [
            (
                trial.architecture,
                self._decisions_of(trial.architecture, trial.trial_id),
                trial.reward,
            )
            for trial in group
            if trial.reward is not None
        ]
        if samples:
            self._learner.learn(samples)

    def _own_state(self) -> StrategyState:
        return self._learner.state_dict()

    def _load_own_state(self, state: StrategyState) -> None:
        self._learner.load_state_dict(state)

    @cached_property
    def _learner(self) -> Learner:
        """All that needs torch, imported on first use: listing strategies must stay cheap."""
        from hwnas.strategies._learner import Learner

        return Learner(self.config, self.seed)


def _check_names(config: Enas.Config, decisions: Sequence[Decision]) -> None:
    """Refuse a bias for an option or a scope that the space does not have.

    Raises:
        UserInputError: Such a bias.
    """
    categorical = [d for d in decisions if d.kind in {"one_of", "integer"}]
    options = {str(option) for d in categorical for option in d.options}
    scopes = {scope_of(d.name) for d in categorical}
    named = [("initial_bias", option) for option in config.initial_bias]
    for scope, biases in config.constant_bias.items():
        if scope not in scopes:
            raise UserInputError(
                f"strategy.constant_bias: no one_of pick of the space is in the scope {scope!r}",
                nearest(scope, scopes),
            )
        named += [(f"constant_bias.{scope}", option) for option in biases]
    for field, option in named:
        if option not in options:
            raise UserInputError(
                f"strategy.{field}: the space has no option {option!r}", nearest(option, options)
            )


def scope_of(name: str) -> str:
    """Return the part of the architecture, such as a cell, within which predecessors count.

    It is the first part of a name that has three or more (``normal/node2/input1``), else ``""``.
    """
    parts = name.split("/")
    return parts[0] if len(parts) > 2 else ""
