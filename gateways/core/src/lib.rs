//! What every gateway shares: record, publisher, tail, history, directory, limits, telemetry, shutdown.
