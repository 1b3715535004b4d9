"""A process that exports a store until it is killed or done: ``process_exporter.py STORE ENDPOINT BATCH``."""

from __future__ import annotations

import sys

from flowdeck.layout import Layout
from flowdeck_sinks.otlp.settings import OtlpSettings
from flowdeck_sinks.otlp.store_export import StoreExport


def main() -> None:
    store, endpoint, batch = sys.argv[1:]
    environ = {"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": batch}
    export = StoreExport(Layout(store), OtlpSettings.from_environment(endpoint, environ=environ))
    export.open()
    while export.round():
        pass

    export.settle()
    export.shut()
    print("done", flush=True)


if __name__ == "__main__":
    main()
