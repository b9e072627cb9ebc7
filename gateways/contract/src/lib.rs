//! What operator and gateways agree on: addresses, filters, routing, configuration file, directory records.
