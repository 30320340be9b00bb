"""Options that are checked whenever they are set; a bad one is a ConfigurationError that shows no secret."""

from collections.abc import Callable, Mapping, Set
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from qwen3_vllm.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound="Options")


class Options(BaseModel):
    """Base of every class with options: unknown ones and bad values are refused, by assignment too.

    The errors name the option and what is wrong with it. They hold no value but numbers: what was refused may
    be a key, or a URL with a password.
    """

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,  # the environment's values
        protected_namespaces=(),
    )

    # Names of one option: who sets the one sets the other.
    _twins: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # type checkers and editors take the options from the fields

        def __init__(self, /, **options: Any) -> None:
            _checked(type(self), type(self).__name__, super().__init__, **options)

        __init__.__pydantic_base_init__ = True  # so that pydantic validates without calling it

        @classmethod
        def model_validate(cls, obj: Any, **options: Any) -> Self:
            return _checked(cls, cls.__name__, super().model_validate, obj, **options)

        @classmethod
        def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
            return _checked(cls, cls.__name__, super().model_validate_json, json_data, **options)

        @classmethod
        def model_validate_strings(cls, obj: Any, **options: Any) -> Self:
            return _checked(cls, cls.__name__, super().model_validate_strings, obj, **options)

        def __setattr__(self, name: str, value: Any) -> None:
            if name in type(self).model_fields:
                self._assign({name: value})
            elif name.startswith("_") or isinstance(getattr(type(self), name, None), property):
                super().__setattr__(name, value)
            else:
                raise ConfigurationError(f"{type(self).__name__}: {_unknown(type(self), name)}")

        def __delattr__(self, name: str) -> None:
            if name in type(self).model_fields:
                raise ConfigurationError(f"{type(self).__name__}: {name} cannot be deleted")
            super().__delattr__(name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; options in `update` are checked."""
        copied = super().model_copy(deep=deep)
        if update:
            copied._assign(update)
        return copied

    def _assign(self, update: Mapping[str, Any]) -> None:
        """Set options, all or none, as if given at construction."""
        kind = type(self)
        if kind.model_config.get("frozen"):
            names = ", ".join(update)
            raise ConfigurationError(
                f"{kind.__name__} is frozen: {names} cannot change; a client's with_options makes another"
            )
        twins = {self._twins[name] for name in update if name in self._twins} - set(update)
        options = {name: value for name, value in dict(self).items() if name not in twins}
        checked = kind(**{**options, **update})
        named = twins.union(update) & set(kind.model_fields)
        changed = {name for name in named if self.__dict__[name] != checked.__dict__[name]}
        for name in named:
            self.__dict__[name] = checked.__dict__[name]
            self.__pydantic_fields_set__.add(name)
        self._follow(changed)

    def _follow(self, changed: Set[str]) -> None:
        """Give up what was made of these options, which were assigned."""

    @model_validator(mode="wrap")
    @classmethod
    def _hide_values(cls, options: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Take refused values out of pydantic's error, which a model of the user's own may raise."""
        try:
            return handler(options)
        except ValidationError as error:
            title, lines = error.title, [_without_value(cls, each) for each in _details(error)]
        raise ValidationError.from_exception_data(title, lines, hide_input=True)


def options_of(owner: type, kind: type[K], options: Mapping[str, Any]) -> K:
    """Check the options of a class that has these instead of being them: errors name that class."""
    return _checked(kind, owner.__name__, super(Options, kind).model_validate, options)


def _checked(kind: type[Options], owner: str, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return action(*args, **kwargs)
    except ValidationError as error:
        problems = [(_name(detail), _problem(kind, detail)) for detail in _details(error)]
    # Raised out here, it has no context: pydantic's error may hold the values.
    refused = ConfigurationError(f"{owner}: {'; '.join(problem for _, problem in problems)}")
    refused.problems = {name: problem for name, problem in problems if name}
    raise refused


def _name(detail: ErrorDetails) -> str:
    return ".".join(map(str, detail["loc"]))


def _problem(kind: type[Options], detail: ErrorDetails) -> str:
    """Say in a few words which option is refused, and why."""
    name, message = _name(detail), detail["msg"]
    if detail["type"] == "value_error":  # a check of ours, which names the option
        return message.removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return _unknown(kind, name)
    shown = f"{name}={detail['input']}" if _is_harmless(kind, detail) else name
    if message.startswith("Input "):
        return f"{shown} {message.removeprefix('Input ')}".lstrip()
    return f"{shown}: {message}" if shown else message


def _unknown(kind: type[Options], name: str) -> str:
    near = get_close_matches(name, kind.model_fields, n=1)
    return f"{name} is not an option" + (f"; did you mean {near[0]}?" if near else "")


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=False)


def _is_harmless(kind: type[Options], detail: ErrorDetails) -> bool:
    """Whether the refused value may be shown: a number, and not of an option that is never shown."""
    if not detail["loc"] or not isinstance(detail["input"], int | float):
        return False
    field = kind.model_fields.get(str(detail["loc"][0]))
    return field is not None and field.repr


def _without_value(kind: type[Options], detail: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=PydanticCustomError(detail["type"], detail["msg"]),
        loc=detail["loc"],
        input=detail["input"] if _is_harmless(kind, detail) else "**********",
    )
