//! Transaction of a group, and the split of its response into the members' responses.

use alloc::vec;
use alloc::vec::Vec;

use super::MalformedResponse;
use super::bundle::{Bundle, BundleKind};
use super::member::GroupMember;
use crate::registry::{Answer, RegistryOp, Request, Response, Txn};

/// Returns the request of a group: that of its only member, or a transaction.
pub(super) fn request(members: &[GroupMember], bundles: &[Bundle]) -> Request {
    match (members, bundles) {
        ([only], _) => only.request.clone(),
        (_, [only]) => Request::Txn(bundle(members, only)),
        _ => {
            let success = bundles.iter().map(|one| RegistryOp::Txn(bundle(members, one))).collect();
            Request::Txn(Txn { success, ..Txn::default() })
        }
    }
}

fn bundle(members: &[GroupMember], bundle: &Bundle) -> Txn {
    let mut made = Txn::default();
    for member in bundle.members.iter().filter_map(|&at| members.get(at)) {
        match &member.request {
            Request::Txn(txn) if bundle.kind == BundleKind::Nested => {
                made.success.push(RegistryOp::Txn(txn.clone()))
            }
            Request::Txn(txn) => {
                made.compares.extend_from_slice(&txn.compares);
                made.success.extend_from_slice(&txn.success);
            }
            Request::Range(range) => made.success.push(RegistryOp::Range(range.clone())),
            Request::Put(put) => made.success.push(RegistryOp::Put(put.clone())),
            Request::Delete(delete) => made.success.push(RegistryOp::Delete(delete.clone())),
            // These requests cannot be steps and are sent alone.
            Request::Compact { .. }
            | Request::Grant { .. }
            | Request::Revoke(_)
            | Request::KeepAlive(_)
            | Request::TimeToLive { .. } => {}
        }
    }
    made
}

/// Splits the response to a group. Returns the response to each member, and `None` for the members of a
/// failed shared bundle.
///
/// # Errors
/// Returns an error if the response has another shape than the request.
pub(super) fn responses(
    response: Response,
    members: &[GroupMember],
    bundles: &[Bundle],
) -> Result<Vec<Option<Response>>, MalformedResponse> {
    if members.len() == 1 {
        return Ok(vec![Some(response)]);
    }
    let mut found = Answers { revision: response.revision, members, responses: vec![None; members.len()] };
    if let [only] = bundles {
        found.add(response.answer, only)?;
        return Ok(found.responses);
    }
    let Answer::Txn { succeeded: true, answers } = response.answer else { return Err(MalformedResponse) };
    if answers.len() != bundles.len() {
        return Err(MalformedResponse);
    }
    for (answer, bundle) in answers.into_iter().zip(bundles) {
        found.add(answer, bundle)?;
    }
    Ok(found.responses)
}

/// Responses found so far.
struct Answers<'a> {
    revision: u64,
    members: &'a [GroupMember],
    responses: Vec<Option<Response>>,
}

impl Answers<'_> {
    fn add(&mut self, answer: Answer, bundle: &Bundle) -> Result<(), MalformedResponse> {
        let Answer::Txn { succeeded, answers } = answer else { return Err(MalformedResponse) };
        if !succeeded {
            let is_failure = bundle.kind == BundleKind::Shared && answers.is_empty();
            return if is_failure { Ok(()) } else { Err(MalformedResponse) };
        }
        let mut steps = answers.into_iter();
        for &at in &bundle.members {
            let (Some(place), Some(member)) = (self.responses.get_mut(at), self.members.get(at)) else {
                return Err(MalformedResponse);
            };
            let answer = match &member.request {
                Request::Txn(txn) if bundle.kind != BundleKind::Nested => {
                    let answers: Vec<_> = steps.by_ref().take(txn.success.len()).collect();
                    if answers.len() != txn.success.len() {
                        return Err(MalformedResponse);
                    }
                    Answer::Txn { succeeded: true, answers }
                }
                _ => steps.next().ok_or(MalformedResponse)?,
            };
            *place = Some(Response { revision: self.revision, answer });
        }
        if steps.next().is_some() { Err(MalformedResponse) } else { Ok(()) }
    }
}
