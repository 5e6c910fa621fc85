"""A recipe that trains a published network trains that network."""

from __future__ import annotations

import pytest

from hwnas.spaces import SPACES
from hwnas.spaces._given import PUBLISHED
from hwnas.study.load import load_config, recipes

CONFIGS = {name: load_config(name) for name in recipes()}
GIVEN = {
    name: config
    for name, config in CONFIGS.items()
    if isinstance(config.architecture, str) and config.architecture.startswith(PUBLISHED)
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_space_has_the_settings_of_the_published_network(name: str) -> None:
    config = GIVEN[name]
    plugin = SPACES.get(config.space.name)
    network = str(config.architecture).removeprefix(PUBLISHED)
    found = plugin.published()[network]
    expected = plugin.Config.model_validate(dict(found.settings))
    assert config.deployed_space().settings == expected


def test_the_cells_of_enas_nasnet_and_darts_have_such_a_recipe() -> None:
    spaces = {config.space.name for config in GIVEN.values()}
    assert {"enas_micro", "nasnet", "darts"} <= spaces
