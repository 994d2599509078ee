//! Outcome of a request for which etcd has not sent the expected answer.

use std::error::Error as _;

use etcd_client as etcd;
use skirmish_core::registry::{Error, Failure};
use tonic::{Code, ConnectError, Status};

/// Meaning of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EtcdFailure {
    /// Outcome of the request.
    Outcome(Failure),
    /// The request was surely not executed, and may be sent again on another connection.
    NotDone,
}

/// Judges an error. The outcome is unknown unless the error is known to mean that nothing was
/// executed: unknown after a broken connection, a deadline, a lost leader, or an error of a newer
/// version.
pub(super) fn judge(error: &etcd::Error) -> EtcdFailure {
    match error {
        etcd::Error::GRpcStatus(status) => judge_status(status),
        _ => EtcdFailure::Outcome(Failure::Unknown),
    }
}

fn judge_status(status: &Status) -> EtcdFailure {
    if let Some(wrong) = said_by_etcd(status.code(), status.message()) {
        return wrong;
    }
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return EtcdFailure::NotDone;
        }
        source = error.source();
    }
    EtcdFailure::Outcome(Failure::Unknown)
}

/// Judges an error by the code and message that etcd sends (its `rpctypes`), if they mean that
/// nothing was executed.
fn said_by_etcd(code: Code, message: &str) -> Option<EtcdFailure> {
    if code == Code::ResourceExhausted && message.starts_with("grpc: received message larger than max") {
        return Some(EtcdFailure::Outcome(Failure::Refused(Error::TooLarge)));
    }
    let message = message.strip_prefix("etcdserver: ")?;
    let refused = |error| Some(EtcdFailure::Outcome(Failure::Refused(error)));
    match (code, message) {
        (Code::InvalidArgument, "key is not provided") => refused(Error::EmptyKey),
        (Code::InvalidArgument, "duplicate key given in txn request") => refused(Error::DuplicateKey),
        (Code::InvalidArgument, "too many operations in txn request") => refused(Error::TooManyOps),
        (Code::InvalidArgument, "request is too large") => refused(Error::TooLarge),
        (Code::OutOfRange, "mvcc: required revision has been compacted") => refused(Error::Compacted),
        (Code::OutOfRange, "mvcc: required revision is a future revision") => refused(Error::FutureRevision),
        (Code::NotFound, "requested lease not found") => refused(Error::LeaseNotFound),
        (Code::FailedPrecondition, "lease already exists") => refused(Error::LeaseExists),
        (Code::OutOfRange, "too large lease TTL") => refused(Error::LeaseTtlTooLarge),
        (Code::InvalidArgument, "value is provided") => refused(Error::ValueProvided),
        (Code::InvalidArgument, "lease is provided") => refused(Error::LeaseProvided),
        (Code::InvalidArgument, "key not found") => refused(Error::KeyNotFound),
        (Code::ResourceExhausted, "mvcc: database space exceeded") => refused(Error::NoSpace),
        (Code::PermissionDenied, "permission denied")
        | (Code::InvalidArgument, "user name is empty")
        | (Code::InvalidArgument, "authentication failed, invalid user ID or password")
        | (Code::Unauthenticated, "invalid auth token")
        | (Code::FailedPrecondition, "authentication is not enabled") => refused(Error::PermissionDenied),
        // Of no use until the data of a member is replaced.
        (Code::DataLoss, "corrupt cluster") => refused(Error::Corrupt),
        // A new token, from another connection, is accepted.
        (Code::InvalidArgument, "revision of auth store is old") => Some(EtcdFailure::NotDone),
        // Other members have a vote.
        (Code::Unavailable | Code::FailedPrecondition, "rpc not supported for learner") => {
            Some(EtcdFailure::NotDone)
        }
        // Refused before the proposal, because the member lags.
        (Code::ResourceExhausted, "too many requests") => Some(EtcdFailure::Outcome(Failure::Unavailable)),
        // Refused without a look at the request, because the client requires a leader.
        (Code::Unavailable, "no leader") => Some(EtcdFailure::NotDone),
        _ => None,
    }
}

/// Formats an error for people. The messages of etcd and the transport have no credentials. Their
/// metadata could have, and is left out.
pub(super) fn text(error: &etcd::Error) -> String {
    let (mut text, mut source) = match error {
        etcd::Error::GRpcStatus(status) => {
            (format!("{:?}: {}", status.code(), status.message()), status.source())
        }
        etcd::Error::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), None),
    };
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: Code, message: &str) -> EtcdFailure {
        judge(&etcd::Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn refused_is_what_etcd_says_by_code_and_message() {
        let refused = |error| EtcdFailure::Outcome(Failure::Refused(error));
        let lease = "etcdserver: requested lease not found";
        assert_eq!(judged(Code::NotFound, lease), refused(Error::LeaseNotFound));
        assert_eq!(judged(Code::InvalidArgument, "etcdserver: key not found"), refused(Error::KeyNotFound));
        assert_eq!(
            judged(Code::ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"),
            refused(Error::TooLarge)
        );
        assert_eq!(judged(Code::Unavailable, lease), EtcdFailure::Outcome(Failure::Unknown));
        for (code, message, error) in [
            (Code::ResourceExhausted, "mvcc: database space exceeded", Error::NoSpace),
            (Code::PermissionDenied, "permission denied", Error::PermissionDenied),
            (Code::InvalidArgument, "user name is empty", Error::PermissionDenied),
            (
                Code::InvalidArgument,
                "authentication failed, invalid user ID or password",
                Error::PermissionDenied,
            ),
            (Code::Unauthenticated, "invalid auth token", Error::PermissionDenied),
            (Code::FailedPrecondition, "authentication is not enabled", Error::PermissionDenied),
            (Code::DataLoss, "corrupt cluster", Error::Corrupt),
        ] {
            assert_eq!(judged(code, &format!("etcdserver: {message}")), refused(error), "{message}");
        }
        assert_eq!(
            judged(Code::NotFound, "requested lease not found"),
            EtcdFailure::Outcome(Failure::Unknown)
        );
    }

    #[test]
    fn what_may_have_been_done_is_unknown() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading server preface: EOF"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
            (Code::Cancelled, "etcdserver: request cancelled"),
            (Code::Unknown, "h2 protocol error"),
            (Code::OutOfRange, "Error, decoded message length too large"),
        ] {
            assert_eq!(judged(code, message), EtcdFailure::Outcome(Failure::Unknown), "{message}");
        }
        let other = etcd::Error::WatchError("closed".to_owned());
        assert_eq!(judge(&other), EtcdFailure::Outcome(Failure::Unknown));
    }

    #[test]
    fn what_was_surely_not_done_says_so() {
        assert_eq!(judged(Code::Unavailable, "etcdserver: no leader"), EtcdFailure::NotDone);
        let learner = "etcdserver: rpc not supported for learner";
        assert_eq!(judged(Code::Unavailable, learner), EtcdFailure::NotDone);
        assert_eq!(judged(Code::FailedPrecondition, learner), EtcdFailure::NotDone);
        let old = "etcdserver: revision of auth store is old";
        assert_eq!(judged(Code::InvalidArgument, old), EtcdFailure::NotDone);
        let busy = judged(Code::ResourceExhausted, "etcdserver: too many requests");
        assert_eq!(busy, EtcdFailure::Outcome(Failure::Unavailable));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        assert_eq!(judge(&etcd::Error::GRpcStatus(status)), EtcdFailure::NotDone);
        let status = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!(judge(&etcd::Error::GRpcStatus(status)), EtcdFailure::Outcome(Failure::Unknown));
    }
}
