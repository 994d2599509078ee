//! A client's process: the client library, and an application that executes the plan and records
//! its events in the ledger.

use std::net::SocketAddr;

use bytes::Bytes;
use madsim::time::{Duration, sleep};
use skirmish_core::id::Name;
use skirmish_core::rng::Seed;
use skirmish_core::time::Wall;
use skirmish_io::client::{Client, ClientBuilder, Error, Events};
use skirmish_io::clock::Clock;
use skirmish_io::token::Keys;
use tokio::sync::mpsc;

use super::actions::ClientCommand;
use super::ledger::SharedLedger;
use super::matches;
use crate::history::Actor;
use crate::oracle::ClientLife;

/// Returns the address of a server for players.
pub(super) fn player_address(server: usize) -> SocketAddr {
    SocketAddr::from((server_host(server), 9500))
}

/// Returns the address of a server for other servers.
pub(super) fn link_address(server: usize) -> SocketAddr {
    SocketAddr::from((server_host(server), 9700))
}

/// Returns the IP address of a server's host.
pub(super) fn server_host(server: usize) -> [u8; 4] {
    [10, 0, 0, u8::try_from(server + 1).unwrap_or(u8::MAX)]
}

/// Life of a token: longer than any run, with any error of the clocks.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Returns the keys by which tokens are signed and checked.
pub(super) fn keys(seed: &Seed) -> Keys {
    Keys::from_secret("sim", seed).expect("a seed is as long as a secret must be")
}

/// Returns the name of a player.
pub(super) fn player_name(player: usize) -> Name {
    Name::new(&format!("player-{player}")).expect("it is short and has letters, digits and a dash only")
}

/// Returns a token for a player.
pub(super) fn token(keys: &Keys, player: usize, wall: Wall) -> String {
    keys.sign(&player_name(player), TOKEN_LIFE, wall, None).expect("the key is there and can sign")
}

/// Runs one life of the process, until its client has ended.
pub(super) async fn live(
    shared: SharedLedger,
    client_life: ClientLife,
    builder: ClientBuilder,
    clock: Clock,
    patient: bool,
    commands: mpsc::UnboundedReceiver<ClientCommand>,
) {
    let connected = if patient { builder.connect().await } else { builder.start() };
    let (client, mut events) = match connected {
        Ok(started) => started,
        Err(error) => {
            let mut ledger = shared.lock();
            ledger.note(Actor::Client(client_life.client), format_args!("does not get to play: {error}"));
            return ledger.gone(client_life.client);
        }
    };
    {
        let mut ledger = shared.lock();
        let process = &mut ledger.clients[client_life.client];
        (process.client, process.clock) = (Some(client.clone()), Some(clock));
    }
    tokio::spawn(play(shared.clone(), client_life, client, commands));
    watch(&shared, client_life, &mut events).await;
    until_idle(&shared, client_life).await;
    let mut ledger = shared.lock();
    ledger.ended(client_life);
    let error = events.take_error();
    ledger.note(Actor::Client(client_life.client), format_args!("has ended, error: {error:?}"));
    ledger.gone(client_life.client);
}

/// Handles events until no more follow.
async fn watch(shared: &SharedLedger, client_life: ClientLife, events: &mut Events) {
    while let Some(event) = events.next_event().await {
        until_idle(shared, client_life).await;
        let (dawdles, invited) = {
            let mut ledger = shared.lock();
            ledger.event(client_life, event);
            let process = &mut ledger.clients[client_life.client];
            (process.dawdles, std::mem::take(&mut process.invited))
        };
        for (room, plays) in invited {
            tokio::spawn(matches::play(shared.clone(), client_life, room, plays));
        }
        if dawdles > 0 {
            sleep(Duration::from_millis(dawdles)).await;
        }
    }
}

/// Waits until no command is being executed: the effects of a command must not be recorded before
/// the command.
async fn until_idle(shared: &SharedLedger, client_life: ClientLife) {
    while shared.lock().clients[client_life.client].busy {
        sleep(Duration::from_micros(1)).await;
    }
}

/// Executes the commands.
async fn play(
    shared: SharedLedger,
    client_life: ClientLife,
    client: Client,
    mut commands: mpsc::UnboundedReceiver<ClientCommand>,
) {
    while let Some(command) = commands.recv().await {
        shared.lock().clients[client_life.client].busy = true;
        let result = execute(&shared, client_life, &client, command).await;
        let mut ledger = shared.lock();
        let lane = Actor::Client(client_life.client);
        match result {
            Ok(()) => ledger.note(lane, format_args!("{command:?}")),
            Err(error) => ledger.note(lane, format_args!("{command:?} is refused: {error}")),
        }
        ledger.clients[client_life.client].busy = false;
    }
}

async fn execute(
    shared: &SharedLedger,
    client_life: ClientLife,
    client: &Client,
    command: ClientCommand,
) -> Result<(), Error> {
    let room_name = |room| shared.lock().room_name(room);
    match command {
        ClientCommand::Join { room, history } => {
            client.join(&room_name(room), history).await?;
            shared.lock().enters(room);
            Ok(())
        }
        ClientCommand::Leave { room } => {
            client.leave(&room_name(room)).await?;
            shared.lock().leaves(client_life, room);
            Ok(())
        }
        ClientCommand::Say { room, count, size } => {
            for _ in 0..count {
                let serial = shared.lock().serial();
                let mut body = serial.to_be_bytes().to_vec();
                body.resize(size.max(8), b'x');
                let message = client.say(&room_name(room), body, "sim.v1.Said").await?;
                shared.lock().said(client_life, room, message.0, serial);
            }
            Ok(())
        }
        ClientCommand::Latest { room, key, count } => {
            for number in 0..count {
                let body = Bytes::copy_from_slice(&number.to_be_bytes());
                client.latest(&room_name(room), key, body, "sim.v1.Position").await?;
            }
            Ok(())
        }
        ClientCommand::Set { room, name, value } => {
            let value = Bytes::from(value.to_string());
            client.set_property(&room_name(room), &format!("property-{name}"), Some(value)).await
        }
        ClientCommand::Unset { room, name } => {
            client.set_property(&room_name(room), &format!("property-{name}"), None).await
        }
        ClientCommand::Add { room, name, delta } => {
            client.add(&room_name(room), &format!("counter-{name}"), delta).await
        }
        ClientCommand::Application { size } => client.send("sim.v1.Echo", vec![7; size]).await,
        ClientCommand::Queue { mode, party, rating } => {
            matches::search(shared, client_life, client, mode, party, rating).await
        }
        ClientCommand::Cancel => client.cancel().await,
        ClientCommand::GiveUp => matches::give_up(shared, client_life, client).await,
        ClientCommand::LeaveMatches => matches::leave(shared, client_life, client).await,
        ClientCommand::Quit => client.disconnect().await,
    }
}
