"""What calls show to OpenTelemetry, in processes that use it."""
