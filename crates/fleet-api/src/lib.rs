//! fleet's wire contract: the JSON of API v1 and v2, errors and paging; with the feature
//! `client`, an HTTP client over any byte stream.

pub mod v2;
