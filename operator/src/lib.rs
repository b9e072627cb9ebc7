//! The Tidegate operator: controllers for platforms, gateways, topics and fleets.
