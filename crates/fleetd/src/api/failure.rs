//! What a request fails with.

use crate::store;

/// A status and its message, which names the thing, the reason and the cure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) message: String,
    /// The reason, where v1 promises a message without one: v2 says it behind the message, v1 in
    /// a header.
    pub(crate) detail: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
            detail: None,
        }
    }

    /// Message and reason.
    pub(crate) fn full_message(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.message),
            None => self.message.clone(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, message)
    }

    /// v1's message for units that are not there.
    pub(crate) fn no_unit() -> Failure {
        Failure::new(404, "unit does not exist")
    }

    /// 503, which an address in front of several fleetds takes for "ask another one".
    pub(crate) fn unavailable(reason: &str) -> Failure {
        Failure {
            detail: Some(reason.to_owned()),
            ..Failure::new(503, "fleet server unable to communicate with etcd")
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        match error {
            store::Error::Unavailable(reason) => Failure::unavailable(&reason),
            store::Error::Conflict => Failure::new(
                409,
                "others keep changing the same thing at the same time: try again",
            ),
            store::Error::OutcomeUnknown(_) => Failure::new(
                503,
                format!("{error}: look whether it has happened, then try again"),
            ),
            store::Error::NoSpace(_) => Failure::new(507, error.to_string()),
            error => Failure::new(500, error.to_string()),
        }
    }
}
