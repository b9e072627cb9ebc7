//! A real multi-node Kubernetes cluster on one machine, from package registries.
