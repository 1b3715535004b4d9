"""Which model to ask, where and how: told to an agent, or found in the settings."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from flowdeck.errors import ModelNotConfigured

if TYPE_CHECKING:
    from flowdeck.definition.settings import Settings
    from flowdeck.models.requester import ModelRequester

__all__ = ["MODEL_SETTING", "ModelConfig", "with_api_key"]

MODEL_SETTING: Final = "model"
"""The setting (of an agent or of the runtime) that names the model: a text, a mapping, a :class:`ModelConfig`."""
_COMPATIBLE: Final = ("OpenAICompatible", "OpenAILike", "OAIClient")
_HELP: Final = (
    "name one: agent.use_model('openai:gpt-5-mini'), agent.use_model('name', base_url=…, api_key=…), "
    "runtime.settings['model'] = …, or FLOWDECK_MODEL"
)


@dataclass(frozen=True)
class ModelConfig:
    """One model.

    Attributes:
        name: ``provider:model`` as pydantic-ai names them; with ``base_url`` the plain name.
        base_url: an OpenAI-compatible server.
        api_key: sent to the provider, and shown nowhere; by default from the provider's own environment variable.
        settings: pydantic-ai's model settings: ``temperature``, ``max_tokens``, ``timeout``, ``seed`` …
        options: further ones of the provider's model class, such as ``profile``.
        requester: answers in the place of a provider.
        model: a pydantic-ai model object to use as it is.
    """

    name: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    requester: ModelRequester | None = field(default=None, repr=False)
    model: Any = field(default=None, repr=False)

    @staticmethod
    def of(given: Any, **more: Any) -> ModelConfig:
        """Read a text, a mapping, a pydantic-ai model, a requester or a config; ``more`` lies over it.

        Raises:
            ModelNotConfigured: it is none of these.
        """
        if isinstance(given, ModelConfig):
            config = given
        elif isinstance(given, str) and given.strip():
            config = ModelConfig(given.strip())
        elif isinstance(given, Mapping):
            config = _from_mapping(given)
        elif hasattr(given, "request_stream"):  # pydantic-ai's Model
            config = ModelConfig(str(getattr(given, "model_name", type(given).__name__)), model=given)
        elif hasattr(given, "stream"):
            config = ModelConfig(str(getattr(given, "name", type(given).__name__)), requester=given)
        else:
            raise ModelNotConfigured(f"{given!r:.200} is no model; {_HELP}")

        given_more = {key: value for key, value in more.items() if value is not None}
        settings = {**config.settings, **given_more.pop("settings", {})}
        return replace(config, settings=settings, **given_more)

    @staticmethod
    def find(settings: Settings) -> ModelConfig:
        """Return the model the settings or the environment name.

        Raises:
            ModelNotConfigured: nobody names one.
        """
        given = settings.get(MODEL_SETTING)
        if given is None:
            given = next((found for name in _COMPATIBLE if (found := settings.get(name)) is not None), None)

        if given is None:
            given = os.environ.get("FLOWDECK_MODEL") or None

        if given is None:
            raise ModelNotConfigured(f"no model is named; {_HELP}")

        return ModelConfig.of(given)

    @property
    def provider(self) -> str:
        """The provider's name, as events tell."""
        if self.requester is not None:
            return type(self.requester).__name__

        if self.model is not None:
            return str(getattr(self.model, "system", "") or "custom")

        return "openai-compatible" if self.base_url is not None else self.name.partition(":")[0]

    @property
    def public_url(self) -> str | None:
        """The server's address without whatever could be a secret: no user, no query."""
        url = self.base_url
        if url is None:
            url = getattr(self.model, "base_url", None)

        if not url:
            return None

        parts = urlsplit(str(url))
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts no event and no error may show."""
        headers = self.settings.get("extra_headers")
        found = [self.api_key or "", *(str(v) for v in (headers.values() if isinstance(headers, Mapping) else ()))]
        if self.base_url and "@" in (netloc := urlsplit(self.base_url).netloc):
            user = netloc.rpartition("@")[0]
            found += [user, *user.split(":"), base64.b64encode(unquote(user).encode()).decode()]

        if not self.api_key:
            found += [value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN"))]

        return tuple(each for each in found if len(each) >= 6)


def with_api_key(settings: MutableMapping[str, Any], api_key: str) -> None:
    """Set the key of the model that ``settings`` name.

    Raises:
        ModelNotConfigured: they name none.
    """
    found = next((name for name in (MODEL_SETTING, *_COMPATIBLE) if name in settings), None)
    if found is None:
        raise ModelNotConfigured(f"no model is named yet whose key this could be; {_HELP}")

    settings[found] = replace(ModelConfig.of(settings[found]), api_key=api_key)


def _from_mapping(given: Mapping[str, Any]) -> ModelConfig:
    """Read ``{"model" or "name", "base_url", "api_key" or "auth", "settings" or "request_options", …}``."""
    name = given.get("name") or given.get("model")
    if not isinstance(name, str) or not name:
        raise ModelNotConfigured(f"a model needs a name under 'model', got the keys {sorted(map(str, given))}")

    auth = given.get("api_key", given.get("auth"))
    settings = {**(given.get("request_options") or {}), **(given.get("settings") or {})}
    key = auth.get("api_key") if isinstance(auth, Mapping) else auth
    if isinstance(auth, Mapping) and isinstance(auth.get("headers"), Mapping):
        settings["extra_headers"] = {**auth["headers"], **settings.get("extra_headers", {})}

    return ModelConfig(
        name, given.get("base_url"), None if key is None else str(key), settings, given.get("options") or {}
    )
