//! Hosts of the clients, and the actions on them.

use std::sync::Arc;

use madsim::time::{Duration, sleep};
use skirmish_io::client::{Client, Credentials};
use skirmish_io::clock::Clock;
use tokio::sync::mpsc;

use super::actions::{ClientAction, Cut};
use super::dial::SimDialer;
use super::hosts::Hosts;
use super::ledger::{AFTERMATH, Ledger, at};
use super::player::{self, keys, player_address, player_name, token};

/// Time that a process needs after a pause until its application knows the state of its client, in
/// microseconds.
const SETTLES: u64 = 1_000_000;

impl Hosts {
    pub(super) async fn act_on_client(&mut self, client: usize, action: ClientAction) {
        match action {
            ClientAction::Start => self.start_client(client).await,
            ClientAction::Do(_) => {}
            ClientAction::Kill => self.kill_client(client).await,
            ClientAction::Pause => {
                self.until_idle(client).await;
                self.shared.lock().clients[client].paused = true;
                self.runtime.pause(self.clients[client].id());
            }
            ClientAction::Resume => self.resume_client(client),
            ClientAction::Dawdle(millis) => {
                let process = &mut self.shared.lock().clients[client];
                if process.dawdles > 0 {
                    process.late_until = at() + AFTERMATH;
                }
                process.dawdles = millis;
            }
            ClientAction::Cut(cut, from) => self.cut_client(client, cut, from),
            ClientAction::Mend => self.mend_client(client),
            ClientAction::Reset => self.reset_client(client),
            ClientAction::Move(server) => {
                {
                    let mut ledger = self.shared.lock();
                    ledger.coverage.hit("client moved");
                    let process = &mut ledger.clients[client];
                    (process.home, process.unwelcome) = (server, false);
                }
                self.reset_client(client);
            }
            ClientAction::Skew(skew_ms) => {
                let mut ledger = self.shared.lock();
                let process = &mut ledger.clients[client];
                process.skew_ms = skew_ms;
                process.clock.iter().for_each(|clock| clock.set_skew_ms(skew_ms));
            }
        }
    }

    /// Resets the client's connection. Data that the client had sent arrives later.
    fn reset_client(&self, client: usize) {
        if let Some(cable) = self.shared.lock().clients[client].cable.take() {
            cable.pull();
        }
    }

    fn cut_client(&self, client: usize, cut: Cut, from: Option<usize>) {
        let host = self.clients[client].id();
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("partition");
        let process = &mut ledger.clients[client];
        process.backlogged = true;
        for (number, server) in self.servers.iter().enumerate() {
            if from.is_some_and(|from| from != number) {
                continue;
            }
            if cut.is_up() {
                process.blocked.insert(number);
                self.net.clog_link(host, server.id());
            }
            if cut.is_down() {
                process.deaf.insert(number);
                self.net.clog_link(server.id(), host);
            }
        }
    }

    pub(super) fn mend_client(&self, client: usize) {
        let host = self.clients[client].id();
        let mut ledger = self.shared.lock();
        let process = &mut ledger.clients[client];
        process.blocked.clear();
        process.deaf.clear();
        for server in &self.servers {
            self.net.unclog_link(host, server.id());
            self.net.unclog_link(server.id(), host);
        }
    }

    pub(super) fn resume_client(&self, client: usize) {
        let was_paused = {
            let process = &mut self.shared.lock().clients[client];
            if process.paused {
                process.late_until = process.late_until.max(at() + SETTLES);
            }
            std::mem::take(&mut process.paused)
        };
        if was_paused {
            self.runtime.resume(self.clients[client].id());
        }
    }

    /// Waits until the application is not in the middle of a command: the ledger must know of each
    /// message that the client has accepted.
    async fn until_idle(&self, client: usize) {
        let busy = |ledger: &Ledger| {
            let process = &ledger.clients[client];
            process.busy && process.running && !process.paused
        };
        while busy(&self.shared.lock()) {
            sleep(Duration::from_micros(20)).await;
        }
    }

    /// Starts a client's process, unless it runs.
    pub(super) async fn start_client(&mut self, client: usize) {
        if self.shared.lock().clients[client].running {
            return;
        }
        self.stop_host(&self.clients[client]).await;
        let seed = self.rng.split();
        let chopping = self.plan.chopped.then(|| self.rng.split());
        let percent = self.rng.range(0..=99);
        let clock = Clock::new();
        let (commands, inbox) = mpsc::unbounded_channel();
        let (client_life, home) = {
            let mut ledger = self.shared.lock();
            let client_life = ledger.client_life(client);
            let process = &mut ledger.clients[client];
            (process.running, process.paused, process.commands) = (true, false, Some(commands));
            clock.set_skew_ms(process.skew_ms);
            (client_life, process.home)
        };
        let dialer = SimDialer::new(self.shared.clone(), client, chopping);
        let keys = Arc::new(keys(&self.secret));
        let player = self.plan.player(client);
        // The issuer's clock is right.
        let issuer = Clock::new();
        let credentials = Credentials::provider(move || {
            let token = token(&keys, player, issuer.now().wall);
            async move { Ok(token) }
        });
        // The dialer decides which server the client really reaches.
        let builder = Client::builder(&format!("ws://{}/", player_address(home)), credentials)
            .config(self.plan.shape.client_config(percent))
            .player(player_name(player).as_str())
            .seed(seed)
            .clock(clock.clone())
            .dialer(Arc::new(dialer))
            .event_capacity(self.plan.event_capacity)
            .plant(self.planted);
        let life = player::live(self.shared.clone(), client_life, builder, clock, self.plan.patient, inbox);
        self.spawn(&self.clients[client], life);
    }

    /// Kills a client's process.
    pub(super) async fn kill_client(&mut self, client: usize) {
        self.until_idle(client).await;
        self.runtime.kill(self.clients[client].id());
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("client crash");
        ledger.gone(client);
    }
}
