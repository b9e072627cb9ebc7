//! HTTP for Tidegate: requests, replies, server.
