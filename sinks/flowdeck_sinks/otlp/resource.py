"""The resource: which program and process the spans come from.

``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win over everything else, as an operator expects. The flow's name
is an attribute of spans and never ``service.name``: a viewer's list of services would explode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from flowdeck.layout import host_name, library_version

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

__all__ = ["DEFAULT_SERVICE", "make_resource", "resource_attributes"]

DEFAULT_SERVICE: Final = "flowdeck"


def resource_attributes(
    instance: str, *, of_process: bool = True, environ: Mapping[str, str] | None = None
) -> dict[str, str | int]:
    """Return the resource's attributes.

    Args:
        instance: ``service.instance.id``: the id of the store's writer, or another one per process.
        of_process: whether everything comes from this very process; an export of a store speaks for many.
    """
    env = os.environ if environ is None else environ
    out: dict[str, str | int] = {
        "service.name": DEFAULT_SERVICE,
        "service.instance.id": instance,
        "host.name": host_name(),
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": _sdk_version(),
        "telemetry.distro.name": "flowdeck",
        "telemetry.distro.version": library_version(),
    }
    if of_process:
        out["process.pid"] = os.getpid()

    for item in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = item.partition("=")
        if equals and name.strip():
            out[unquote(name.strip())] = unquote(value.strip())

    service = env.get("OTEL_SERVICE_NAME", "").strip()
    if service:
        out["service.name"] = service

    return out


def make_resource(instance: str, *, of_process: bool = True) -> Resource:
    """Return the SDK's resource of :func:`resource_attributes`."""
    from opentelemetry.sdk.resources import Resource

    return Resource(resource_attributes(instance, of_process=of_process))


def _sdk_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("opentelemetry-sdk")
    except PackageNotFoundError:
        return "unknown"
