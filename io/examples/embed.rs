//! A server in a program of one's own, with a handler for its application messages.
//!
//! `cargo run --example embed` listens on 127.0.0.1:9500 and prints a token.
#![allow(clippy::print_stdout, reason = "the program says how to connect")]

use std::error::Error;
use std::time::Duration;

use skirmish_core::id::Name;
use skirmish_io::clock::Clock;
use skirmish_io::config::Config;
use skirmish_io::server::{ApplicationMessage, Handle, Server};
use skirmish_io::token::{Keys, new_secret};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = Keys::from_secret("main", new_secret()?.as_bytes())?;
    let token = keys.sign(&Name::new("alice")?, Duration::from_secs(3600), Clock::new().now().wall, None)?;

    let server = Server::builder(Config::default())
        .keys(keys)
        .route("mygame.v1.Attack", |attack: ApplicationMessage, server: &Handle| {
            // Runs on the server's own thread: hand what takes long to a task.
            server.send(attack.conn, "mygame.v1.Attacked", &attack.payload);
        })
        .bind()
        .await?;
    println!("ws://{}/ {token}", server.local_addr());

    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    server.run(interrupted).await;
    Ok(())
}
