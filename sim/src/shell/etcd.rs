//! The registry's process, on a host of its own: etcd's part.

use std::net::{IpAddr, SocketAddr};

use madsim::net::{Endpoint, Receiver, Sender};
use skirmish_core::registry::Watched;
use skirmish_core::time::Instant;
use skirmish_io::clock::Clock;
use tokio::sync::mpsc;

use super::ledger::SharedLedger;
use super::registry_state::{ConnectionEnds, HistoryNote, RegistryMessage, RegistryState, ServerMessage};
use crate::history::Actor;

/// Address of the registry.
pub(super) const REGISTRY: ([u8; 4], u16) = ([10, 0, 2, 1], 2379);

/// Runs one life of the process.
pub(super) async fn serve(registry_state: RegistryState, shared: SharedLedger) {
    let endpoint = Endpoint::bind(SocketAddr::from(REGISTRY)).await.expect("the address is free");
    tokio::spawn(keep_time(registry_state.clone(), shared.clone()));
    while let Ok((sender, receiver, from)) = endpoint.accept1().await {
        tokio::spawn(attend(registry_state.clone(), shared.clone(), server_at(from.ip()), sender, receiver));
    }
}

/// Returns the server that has an address.
fn server_at(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[3].saturating_sub(1)),
        IpAddr::V6(_) => 0,
    }
}

/// Ends leases, and executes late requests at their time.
async fn keep_time(registry_state: RegistryState, shared: SharedLedger) {
    let clock = registry_state.clock();
    loop {
        let (wake, notes) = registry_state.tick();
        notes.into_iter().for_each(|noted| note(&shared, &noted));
        shared.lock().pass_oracle_events(&registry_state);
        tokio::select! {
            biased;
            () = registry_state.changed() => {}
            () = tokio::time::sleep_until(clock.deadline(wake)) => {}
        }
    }
}

/// Serves a connection until it is closed.
async fn attend(
    registry_state: RegistryState,
    shared: SharedLedger,
    server: usize,
    sender: Sender,
    mut receiver: Receiver,
) {
    let ConnectionEnds { session, mut replies, mut news } = registry_state.open(server);
    let clock = registry_state.clock();
    let mut held = None;
    loop {
        let say = tokio::select! {
            biased;
            asked = receiver.recv() => {
                let Ok(asked) = asked.map(|payload| payload.downcast::<ServerMessage>()) else { break };
                if let Some(noted) = asked.ok().and_then(|asked| registry_state.take(session, *asked)) {
                    note(&shared, &noted);
                }
                shared.lock().pass_oracle_events(&registry_state);
                continue;
            }
            Some(say) = replies.recv() => say,
            Some(watched) = next_news(&clock, &mut news, &mut held) => RegistryMessage::Watched(watched),
        };
        if sender.send(Box::new(say)).await.is_err() {
            break;
        }
    }
    registry_state.close(session);
}

/// Returns the next watch event once it may leave. Cancel safe.
async fn next_news(
    clock: &Clock,
    news: &mut mpsc::UnboundedReceiver<(Instant, Watched)>,
    held: &mut Option<(Instant, Watched)>,
) -> Option<Watched> {
    if held.is_none() {
        *held = Some(news.recv().await?);
    }
    let at = held.as_ref()?.0;
    if clock.now().instant < at {
        tokio::time::sleep_until(clock.deadline(at)).await;
    }
    Some(held.take()?.1)
}

fn note(shared: &SharedLedger, noted: &HistoryNote) {
    let mut ledger = shared.lock();
    if let Some(mark) = noted.mark {
        ledger.coverage.hit(mark);
        if mark == "lease ended" && ledger.shape.drift_ppm > 0 {
            ledger.coverage.hit("lease ended adrift");
        }
    }
    ledger.note(Actor::Registry, format_args!("{}", noted.text));
}
