//! The body of every error, of v1 and v2 alike: `{"error":{"code":404,"message":"…"}}`.

use serde::{Deserialize, Serialize};

/// The whole body.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// The HTTP status once more.
    pub code: u16,
    /// The thing, the reason and the cure. v1 leaves it empty where the original does.
    pub message: String,
    /// Names the request in fleetd's log. Never in v1, whose bytes are fixed (there it is in
    /// the header [`crate::REQUEST_ID_HEADER`] only).
    #[serde(rename = "requestID", skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

impl ErrorBody {
    /// A body of v1.
    pub fn new(code: u16, message: impl Into<String>) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                code,
                message: message.into(),
                request_id: String::new(),
            },
        }
    }

    /// A body of v2.
    pub fn with_request_id(self, request_id: &str) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                request_id: request_id.to_owned(),
                ..self.error
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_v1_is_the_originals() {
        let body = ErrorBody::new(404, "unit does not exist");
        assert_eq!(
            crate::v1::to_json(&body),
            br#"{"error":{"code":404,"message":"unit does not exist"}}"#
        );
        assert_eq!(
            crate::v1::to_json(&ErrorBody::new(405, "")),
            br#"{"error":{"code":405,"message":""}}"#
        );
    }

    #[test]
    fn a_body_of_v2_names_the_request() {
        let body = ErrorBody::new(404, "x").with_request_id("r-1");
        assert_eq!(
            crate::v1::to_json(&body),
            br#"{"error":{"code":404,"message":"x","requestID":"r-1"}}"#
        );
    }
}
