//! etcd, by its v3 API.
