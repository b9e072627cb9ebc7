//! `/healthz`, `/readyz` and `/metrics` on a port of their own. IO: one HTTP listener.
