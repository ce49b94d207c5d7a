"""Where spans of requests go; `tracing_config.exporter_import_path` of a deployment file names a function."""

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def otlp() -> list[SpanProcessor]:
    """To a collector that speaks OTLP over HTTP, at OTEL_EXPORTER_OTLP_ENDPOINT. Needs the package
    opentelemetry-exporter-otlp-proto-http."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return [BatchSpanProcessor(OTLPSpanExporter())]
