"""A section of the configuration that names a plug-in: ``{name: X, ...settings of X}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from hwnas.errors import UserInputError
from hwnas.registry import PluginConfig, Registry, split_reference
from hwnas.study.catalogue import registry


class Plugin(BaseModel):
    """A plug-in's name with its settings.

    Attributes:
        name: Its name in the registry.
        settings: An instance of the plug-in's own `Config`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    settings: PluginConfig

    @model_serializer(mode="plain")
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings.model_dump(mode="json")}


class OfRegistry:
    """Says which registry a section's plug-in is in; loaded when the section is validated.

    Args:
        place: Module and attribute, such as ``"hwnas.spaces:SPACES"``.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __get_pydantic_core_schema__(
        self, source: type[Plugin], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate with `validate` first."""
        return core_schema.no_info_before_validator_function(self.validate, handler(source))

    @property
    def registry(self) -> Registry[Any]:
        """The registry itself."""
        return registry(self.place)

    def settings_of(self, name: object) -> type[BaseModel] | None:
        """Return the settings class of the plug-in called `name`, or None if there is none."""
        plain = str(name).partition(":")[0]  # settings may follow: `split_reference`
        if plain not in self.registry.names():
            return None
        config: type[BaseModel] = self.registry.get(plain).Config
        return config

    def validate(self, value: object) -> Plugin:
        """Make a `Plugin` of a name, or of a mapping with a name and settings.

        Raises:
            ValidationError: No such plug-in, or its settings are wrong: all mistakes at once.
        """
        if isinstance(value, Plugin):
            value = value.model_dump()
        if isinstance(value, str):
            try:
                called, given = split_reference(value)
            except UserInputError as error:
                raise _error((), f"{error.message} ({error.hint})") from error
            value = {"name": called, **given}
        kind = self.registry.kind
        if not isinstance(value, Mapping):
            raise _error((), f"expected a {kind}'s name, or a mapping with its name and settings")
        settings = dict(value)
        name = settings.pop("name", None)
        if name is None:
            known = ", ".join(self.registry.names())
            raise _error((), f"the name of the {kind} is missing; known: {known}")
        try:
            plugin = self.registry.get(str(name))
        except UserInputError as error:
            raise _error(("name",), f"{error.message}. {error.hint}") from None
        return Plugin(name=str(name), settings=plugin.Config.model_validate(settings))


def below(place: tuple[str, ...], error: ValidationError) -> ValidationError:
    """Return an error with the same mistakes at another place of the file."""
    details = [
        InitErrorDetails(
            type=each["type"],
            loc=(*place, *each["loc"]),
            input=each["input"],
            ctx=each.get("ctx", {}),
        )
        for each in error.errors(include_url=False)
    ]
    return ValidationError.from_exception_data("space", details)


def _error(loc: tuple[str | int, ...], message: str) -> ValidationError:
    """Build an error that pydantic merges into those of the enclosing model."""
    # Braces would be read as a template.
    kind = PydanticCustomError("plugin", "{text}", {"text": message})
    details = InitErrorDetails(type=kind, loc=loc, input=None)
    return ValidationError.from_exception_data("plugin", [details])


DataSection = Annotated[Plugin, OfRegistry("hwnas.data:DATASETS")]
SPACE = OfRegistry("hwnas.spaces:SPACES")
SpaceSection = Annotated[Plugin, SPACE]
StrategySection = Annotated[Plugin, OfRegistry("hwnas.strategies:STRATEGIES")]
RewardSection = Annotated[Plugin, OfRegistry("hwnas.objectives:REWARDS")]
EstimatorSection = Annotated[Plugin, OfRegistry("hwnas.estimators:ESTIMATORS")]
ExecutorSection = Annotated[Plugin, OfRegistry("hwnas.engine.executors:EXECUTORS")]
RuntimeSection = Annotated[Plugin, OfRegistry("hwnas.latency.runtimes:RUNTIMES")]
