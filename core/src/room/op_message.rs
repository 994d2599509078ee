//! Ops as messages from a room's primary to its backup.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1::{self, op};

use super::machine::Seat;
use super::op::{Input, Op};
use super::pending::PendingOp;
use crate::base::id::{Name, SessionId};

/// A message of another node about ops is not one of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedOp;

impl PendingOp {
    pub(super) fn to_message(&self) -> v1::Op {
        let Self { op: Op { number, term, at_ms, input }, metadata } = self;
        let arrival = |member, player: Option<&Name>, seat: &Seat| op::Arrival {
            member,
            player: player.map_or_else(String::new, |player| player.as_str().into()),
            session: Bytes::copy_from_slice(seat.session.as_bytes()),
            session_epoch: seat.epoch,
        };
        let input = match input {
            Input::Say { member, client_seq, body, type_url, ends_turn } => op::Input::Say(op::Message {
                member: *member,
                client_seq: *client_seq,
                body: body.clone(),
                type_url: type_url.clone(),
                ends_turn: *ends_turn,
            }),
            Input::Join { player, seat } => op::Input::Join(arrival(0, Some(player), seat)),
            Input::Leave { member } => op::Input::Leave(*member),
            Input::Seat { member, seat } => op::Input::Seat(arrival(*member, None, seat)),
            Input::EndTurn { turn } => op::Input::EndTurn(*turn),
        };
        let metadata = metadata.as_ref().map_or_else(Bytes::new, |metadata| metadata.encode_to_vec().into());
        v1::Op { number: *number, term: *term, at_ms: *at_ms, input: Some(input), metadata }
    }

    pub(super) fn from_message(message: v1::Op) -> Result<Self, MalformedOp> {
        let v1::Op { number, term, at_ms, input, metadata } = message;
        let seat = |arrival: &op::Arrival| {
            let session = SessionId::from_wire(&arrival.session).ok_or(MalformedOp)?;
            Ok(Seat { session, epoch: arrival.session_epoch })
        };
        let input = match input.ok_or(MalformedOp)? {
            op::Input::Say(op::Message { member, client_seq, body, type_url, ends_turn }) => {
                Input::Say { member, client_seq, body, type_url, ends_turn }
            }
            op::Input::Join(arrival) => {
                let player = Name::new(&arrival.player).map_err(|_| MalformedOp)?;
                Input::Join { player, seat: seat(&arrival)? }
            }
            op::Input::Leave(member) => Input::Leave { member },
            op::Input::Seat(arrival) => Input::Seat { member: arrival.member, seat: seat(&arrival)? },
            op::Input::EndTurn(turn) => Input::EndTurn { turn },
        };
        let metadata = if metadata.is_empty() {
            None
        } else {
            Some(Box::new(v1::Metadata::decode(metadata).map_err(|_| MalformedOp)?))
        };
        Ok(Self { op: Op { number, term, at_ms, input }, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_the_same_after_its_way_over_a_link() {
        let seat = Seat { session: SessionId([7; 16]), epoch: 5 };
        let player = Name::new("ann").unwrap();
        let (body, type_url) = (Bytes::from_static(b"hi"), String::from("game.Hit"));
        let metadata = v1::Metadata { trace_flags: 1, ..v1::Metadata::default() };
        let inputs = [
            Input::Say { member: 1, client_seq: 2, body, type_url, ends_turn: Some(0) },
            Input::Join { player, seat },
            Input::Leave { member: 3 },
            Input::Seat { member: 4, seat },
            Input::EndTurn { turn: 0 },
        ];
        for (number, input) in (1..).zip(inputs) {
            for metadata in [None, Some(Box::new(metadata.clone()))] {
                let op = Op { number, term: 2, at_ms: 9, input: input.clone() };
                let pending = PendingOp { op, metadata };
                let message = v1::Op::decode(pending.to_message().encode_to_vec().as_slice()).unwrap();
                let back = PendingOp::from_message(message).unwrap();
                assert_eq!((&back.op, &back.metadata), (&pending.op, &pending.metadata));
            }
        }
    }

    #[test]
    fn an_op_that_says_nothing_is_malformed() {
        assert!(PendingOp::from_message(v1::Op::default()).is_err());
        let nobody = op::Arrival { session: vec_of_zeros(), ..op::Arrival::default() };
        for input in [op::Input::Join(nobody), op::Input::Seat(op::Arrival::default())] {
            let message = v1::Op { input: Some(input), ..v1::Op::default() };
            assert!(PendingOp::from_message(message).is_err());
        }
        let metadata = Bytes::from_static(b"\xff");
        let message = v1::Op { input: Some(op::Input::Leave(1)), metadata, ..v1::Op::default() };
        assert!(PendingOp::from_message(message).is_err());
    }

    fn vec_of_zeros() -> Bytes {
        Bytes::from_static(&[0; 16])
    }
}
