//! A player that joins a room, sends one message and waits until the server has acknowledged it.
//!
//! Start `cargo run --release -- serve --dev`, then
//! `cargo run --example duel -- ws://127.0.0.1:9500/ "$(cargo run --release -- token --dev --player alice)"`
#![allow(clippy::print_stdout, reason = "the program shows what happens")]

use std::env;
use std::error::Error;

use skirmish_io::client::{Client, Event, Outcome};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(url), Some(token)) = (arguments.next(), arguments.next()) else {
        return Err("usage: duel URL TOKEN".into());
    };

    let (client, mut events) = Client::builder(&url, token.as_str()).connect().await?;
    client.join("arena", 0).await?;
    let attack = client.say("arena", "north gate", "mygame.v1.Attack").await?;
    while let Some(event) = events.next_event().await {
        match event {
            Event::Entry { cursor, member, type_url, body, .. } => {
                println!("{}.{} member {member}: {type_url} {body:?}", cursor.epoch, cursor.seq);
            }
            Event::Outcome { message, outcome, .. } if message == attack => {
                println!("the attack is {outcome:?}");
                if outcome == Outcome::Acknowledged {
                    client.disconnect().await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
