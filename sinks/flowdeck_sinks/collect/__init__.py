"""Receiving OpenTelemetry: spans and logs of any program, as events of a store. See ``flowdeck collect``."""
