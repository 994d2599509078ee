//! Plan of a run of the shell world: drawn from the seed, as data.

use skirmish_core::rng::Rng;

use super::actions::{ClientAction, ClientCommand, Cut, ServerAction, ShellAction};
use super::cluster::{self, Drifts};
use super::queues;
use crate::draw::generator;
use crate::scenario::Shape;

/// Plan of a run: sizes, and steps by time.
#[derive(Debug)]
pub(super) struct RunPlan {
    pub(super) seed: u64,
    pub(super) shape: Shape,
    /// Events that may wait for a client's application.
    pub(super) event_capacity: usize,
    /// True if reads and writes of clients are chopped into small pieces.
    pub(super) chopped: bool,
    /// True if applications wait for their first connection before their first command.
    pub(super) patient: bool,
    pub(super) drifts: Drifts,
    /// Steps with their times, in microseconds.
    pub(super) steps: Vec<(u64, ShellAction)>,
}

impl RunPlan {
    /// Returns the player of a client.
    pub(super) fn player(&self, client: usize) -> usize {
        client % usize::try_from(self.shape.players).unwrap_or(1).max(1)
    }

    pub(super) fn clients(&self) -> usize {
        usize::try_from(self.shape.clients).unwrap_or(1)
    }

    /// Returns the number of servers.
    pub(super) fn servers(&self) -> usize {
        self.shape.node_count()
    }

    pub(super) fn rooms(&self) -> u32 {
        u32::try_from(self.shape.rooms).unwrap_or(1)
    }
}

/// Draws the plan of a seed.
pub(super) fn draw(seed: u64) -> RunPlan {
    let mut rng = generator(seed, "shell");
    let mut shape = draw_shape(&mut rng);
    // A separate generator, so that runs with one server do not depend on these draws.
    let mut dice = generator(seed, "shell cluster");
    cluster::draw_shape(&mut dice, &mut shape);
    let spared_percent = pick(&mut dice, &[0, 40, 80]);
    let end = shape.chaos_ms * 1_000;
    let mut draft = Draft { steps: Vec::new(), end, shape, rng, dice, spared_percent };
    draft.workload();
    draft.faults();
    draft.cluster_faults();
    let Draft { mut steps, mut rng, .. } = draft;
    queues::draw(seed, &mut shape, &mut steps);
    let drifts = cluster::draw_drifts(seed, &mut shape);
    steps.sort_by_key(|&(at, _)| at);
    RunPlan {
        seed,
        shape,
        event_capacity: pick(&mut rng, &[1, 4, 64, 256]),
        chopped: rng.range(0..=1) == 0,
        patient: rng.range(0..=3) == 0,
        drifts,
        steps,
    }
}

fn draw_shape(rng: &mut Rng) -> Shape {
    let clients = rng.range(1..=6);
    let session_ttl_ms = pick(rng, &[1_000, 10_000, 60_000]);
    let reliable_rate = pick(rng, &[5, 60, 1_000]);
    let backoff_min_ms = pick(rng, &[50, 500]);
    let heartbeat_ms = pick(rng, &[1_000, 3_000, 15_000]);
    Shape {
        clients,
        players: if rng.range(0..=2) > 0 { clients } else { rng.range(1..=clients) },
        rooms: pick(rng, &[1, 1, 2]),
        chaos_ms: rng.range(5_000..=40_000),
        latency_us: pick(rng, &[500, 5_000, 80_000]),
        jitter_us: pick(rng, &[100, 5_000, 100_000]),
        skew_ms: pick(rng, &[0, 500, 10_000]),
        linger_ms: pick(rng, &[500, 5_000]),
        handshake_ms: pick(rng, &[2_000, 10_000]),
        heartbeat_ms,
        reliable_rate,
        reliable_burst: reliable_rate * pick(rng, &[1, 2]),
        session_ttl_ms,
        window_entries: pick(rng, &[4, 32, 1_024]),
        flush_ms: pick(rng, &[0, 0, 20]),
        // Longer than a member can be away: until its connection is given up, which a pause of the
        // server delays, and then for the life of its session.
        tombstone_ms: (session_ttl_ms + heartbeat_ms * 5 + 60_000) * 2,
        compress_from: pick(rng, &[0, 64]),
        backoff_min_ms,
        backoff_max_ms: backoff_min_ms * 6,
        connect_ms: pick(rng, &[2_000, 10_000]),
        outbox: pick(rng, &[8, 1_024]),
        seal_percent: pick(rng, &[0, 0, 50]),
        ..Shape::default()
    }
}

/// Plan that is being drawn.
pub(super) struct Draft {
    pub(super) steps: Vec<(u64, ShellAction)>,
    pub(super) end: u64,
    pub(super) shape: Shape,
    pub(super) rng: Rng,
    /// Generator of the draws that only clusters need.
    pub(super) dice: Rng,
    /// Percent of the kinds of fault that are left out in clusters.
    pub(super) spared_percent: u64,
}

impl Draft {
    fn workload(&mut self) {
        for client in 0..self.clients() {
            let start = self.rng.range(0..=1_000_000);
            self.client(start, client, ClientAction::Start);
            let room = self.room();
            self.client(start + 1_000, client, ClientAction::Do(ClientCommand::Join { room, history: 0 }));
            // One application sends messages all the time, another hardly any.
            let gap = pick(&mut self.rng, &[20_000, 200_000, 1_000_000]);
            let mut at = start + 2_000;
            while at < self.end {
                let command = self.command();
                self.client(at, client, ClientAction::Do(command));
                at += self.rng.range(gap / 4..=gap * 2);
            }
        }
    }

    fn command(&mut self) -> ClientCommand {
        let room = self.room();
        match self.rng.range(0..=99) {
            0..=54 => ClientCommand::Say {
                room,
                count: pick(&mut self.rng, &[1, 1, 1, 3, 12]),
                size: pick(&mut self.rng, &[8, 8, 100, 3_000]),
            },
            55..=69 => {
                ClientCommand::Latest { room, key: self.small(4), count: pick(&mut self.rng, &[1, 5]) }
            }
            70..=77 => ClientCommand::Set { room, name: self.small(4), value: self.small(1_000) },
            78..=81 => ClientCommand::Unset { room, name: self.small(4) },
            82..=89 => {
                ClientCommand::Add { room, name: self.small(4), delta: i64::from(self.small(20)) - 10 }
            }
            90..=93 => ClientCommand::Join { room, history: pick(&mut self.rng, &[0, 3, 100]) },
            94..=95 => ClientCommand::Leave { room },
            96..=98 => ClientCommand::Application { size: pick(&mut self.rng, &[0, 500]) },
            _ => ClientCommand::Quit,
        }
    }

    /// Adds faults. Each kind of fault is in about half of the seeds, and there rare or frequent.
    fn faults(&mut self) {
        let kinds: [fn(&mut Self, u64); 10] = [
            Self::cut_client,
            Self::cut_server,
            Self::kill_client,
            Self::vanish_client,
            Self::pause_client,
            Self::dawdle,
            Self::stop_server,
            Self::pause_server,
            Self::weather,
            Self::authority,
        ];
        for kind in kinds {
            if self.rng.range(0..=1) == 0 || self.spares() {
                continue;
            }
            let gap = pick(&mut self.rng, &[2_000_000, 8_000_000, 20_000_000]);
            let mut at = self.rng.range(500_000..=gap);
            while at < self.end {
                kind(self, at);
                at += self.rng.range(gap / 4..=gap * 2);
            }
        }
        for client in 0..self.clients() {
            let skew = self.skew();
            self.client(0, client, ClientAction::Skew(skew));
        }
        let skew = self.skew();
        self.skew_servers(skew);
    }

    fn cut_client(&mut self, at: u64) {
        let (client, cut, end) = (self.any_client(), self.cut(), at + self.span());
        let from = self.one_server();
        self.client(at, client, ClientAction::Cut(cut, from));
        self.client(end, client, ClientAction::Mend);
    }

    fn cut_server(&mut self, at: u64) {
        let (cut, end) = (self.cut(), at + self.span());
        let server = self.any_server();
        self.server(at, server, ServerAction::Cut(cut));
        self.server(end, server, ServerAction::Mend);
    }

    fn kill_client(&mut self, at: u64) {
        let (client, back) = (self.any_client(), at + self.span());
        self.client(at, client, ClientAction::Kill);
        self.start_client(back, client);
    }

    /// The host is gone, and no peer is notified. The process must not die before its peers have
    /// given it up, since its death would show.
    fn vanish_client(&mut self, at: u64) {
        let client = self.any_client();
        let gone = at + self.shape.heartbeat_ms * 5_000 + self.shape.linger_ms * 1_000;
        self.client(at, client, ClientAction::Cut(Cut::Both, None));
        self.client(at, client, ClientAction::Pause);
        self.client(gone, client, ClientAction::Kill);
        self.client(gone + 1_000, client, ClientAction::Mend);
        self.start_client(gone + 500_000, client);
    }

    fn pause_client(&mut self, at: u64) {
        let (client, end) = (self.any_client(), at + self.span());
        self.client(at, client, ClientAction::Pause);
        self.client(end, client, ClientAction::Resume);
    }

    fn dawdle(&mut self, at: u64) {
        let (client, end) = (self.any_client(), at + self.span());
        let millis = pick(&mut self.rng, &[10, 100, 1_000]);
        self.client(at, client, ClientAction::Dawdle(millis));
        self.client(end, client, ClientAction::Dawdle(0));
    }

    fn stop_server(&mut self, at: u64) {
        let server = self.any_server();
        match self.rng.range(0..=2) {
            0 => self.server(at, server, ServerAction::Drain),
            1 => self.server(at, server, ServerAction::Kill),
            // The host is gone, and no peer is notified.
            _ => {
                self.server(at, server, ServerAction::Cut(Cut::Both));
                self.server(at, server, ServerAction::Pause);
                let gone = at + cluster::unseen(&self.shape) * 1_000;
                self.server(gone, server, ServerAction::Kill);
                self.server(gone + 1_000, server, ServerAction::Mend);
                self.server(gone + 2_000, server, ServerAction::Start);
                return;
            }
        }
        let back = at + self.span();
        self.server(back, server, ServerAction::Start);
    }

    fn pause_server(&mut self, at: u64) {
        let (server, end) = (self.any_server(), at + self.span());
        self.server(at, server, ServerAction::Pause);
        self.server(end, server, ServerAction::Resume);
    }

    fn weather(&mut self, at: u64) {
        let low = pick(&mut self.rng, &[1_000, 50_000, 400_000]);
        let high = low * pick(&mut self.rng, &[1, 3]) + 1_000;
        let loss = pick(&mut self.rng, &[0, 10, 100]);
        self.steps.push((at, ShellAction::Weather { low, high, loss }));
        let Shape { latency_us, jitter_us, .. } = self.shape;
        let end = at + self.span();
        self.steps
            .push((end, ShellAction::Weather { low: latency_us, high: latency_us + jitter_us, loss: 0 }));
    }

    fn authority(&mut self, at: u64) {
        if self.rng.range(0..=1) == 0 {
            let players = self.shape.players;
            let player = usize::try_from(self.rng.range(0..=players - 1)).unwrap_or(0);
            self.steps.push((at, ShellAction::Kick { player }));
        } else {
            // A wall clock is set right or wrong.
            let (client, skew) = (self.any_client(), self.skew());
            self.client(at, client, ClientAction::Skew(skew));
        }
    }

    fn start_client(&mut self, at: u64, client: usize) {
        let room = self.room();
        self.client(at, client, ClientAction::Start);
        self.client(at + 1_000, client, ClientAction::Do(ClientCommand::Join { room, history: 3 }));
    }

    pub(super) fn client(&mut self, at: u64, client: usize, action: ClientAction) {
        self.steps.push((at, ShellAction::Client(client, action)));
    }

    pub(super) fn server(&mut self, at: u64, server: usize, action: ServerAction) {
        self.steps.push((at, ShellAction::Server(server, action)));
    }

    pub(super) fn clients(&self) -> usize {
        usize::try_from(self.shape.clients).unwrap_or(1)
    }

    fn any_client(&mut self) -> usize {
        let last = self.shape.clients - 1;
        usize::try_from(self.rng.range(0..=last)).unwrap_or(0)
    }

    fn room(&mut self) -> u32 {
        let rooms = u32::try_from(self.shape.rooms).unwrap_or(1);
        self.small(rooms)
    }

    fn small(&mut self, below: u32) -> u32 {
        u32::try_from(self.rng.range(0..=u64::from(below) - 1)).unwrap_or(0)
    }

    fn cut(&mut self) -> Cut {
        pick(&mut self.rng, &[Cut::Both, Cut::Up, Cut::Down])
    }

    fn skew(&mut self) -> i64 {
        let most = i64::try_from(self.shape.skew_ms).unwrap_or(0);
        i64::try_from(self.rng.range(0..=self.shape.skew_ms * 2)).unwrap_or(0) - most
    }

    /// Draws the length of a fault: shorter or longer than a heartbeat needs to detect it.
    fn span(&mut self) -> u64 {
        let most = pick(&mut self.rng, &[20_000, 1_000_000, 8_000_000]);
        self.rng.range(most / 10..=most)
    }
}

pub(super) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    let last = from.len() as u64 - 1;
    from[usize::try_from(rng.range(0..=last)).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_decided_by_its_seed_and_in_order() {
        for seed in 0..50 {
            let plan = draw(seed);
            assert_eq!(plan.steps, draw(seed).steps);
            assert!(plan.steps.is_sorted_by_key(|&(at, _)| at));
        }
    }

    #[test]
    fn in_two_of_five_seeds_every_clock_drifts_its_own_way() {
        let plans: Vec<RunPlan> = (0..1_000).map(draw).collect();
        let with: Vec<&RunPlan> = plans.iter().filter(|plan| plan.shape.drift_ppm > 0).collect();
        assert!((350..450).contains(&with.len()), "{}", with.len());
        let of = |plan: &RunPlan| [&plan.drifts.servers[..], &[plan.drifts.registry]].concat();
        for plan in &plans {
            assert_eq!(plan.drifts.servers.len(), plan.servers());
            let most = i32::try_from(plan.shape.drift_ppm).unwrap();
            assert!(of(plan).iter().all(|drift| drift.abs() <= most), "{:?}", plan.drifts);
        }
        // The registry's clock is fast and a server's slow: this server relies on its lease too
        // long.
        let apart = |plan: &&&RunPlan| {
            plan.drifts.registry > 15_000 && plan.drifts.servers.iter().any(|drift| *drift < -15_000)
        };
        assert!(with.iter().filter(apart).count() > 5);
    }

    #[test]
    fn two_of_five_seeds_have_queues_and_every_action_of_theirs_has_a_like() {
        let plans: Vec<RunPlan> = (0..1_000).map(draw).collect();
        let with: Vec<&RunPlan> = plans.iter().filter(|plan| plan.shape.queues > 0).collect();
        assert!((350..450).contains(&with.len()), "{}", with.len());
        let any =
            |is: fn(&ShellAction) -> bool| with.iter().flat_map(|plan| &plan.steps).any(|(_, act)| is(act));
        assert!(any(|act| matches!(
            act,
            ShellAction::Client(_, ClientAction::Do(ClientCommand::Queue { party: 1.., .. }))
        )));
        assert!(any(|act| matches!(act, ShellAction::Client(_, ClientAction::Do(ClientCommand::Cancel)))));
        assert!(any(|act| matches!(
            act,
            ShellAction::Client(_, ClientAction::Do(ClientCommand::LeaveMatches))
        )));
        assert!(any(|act| matches!(
            act,
            ShellAction::FailMatcher { how: crate::matches::MatcherFailure::LastMatch, .. }
        )));
    }
}
