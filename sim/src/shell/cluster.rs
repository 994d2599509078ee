//! Draws the additional faults of seeds with several servers, or with a registry on a host of its
//! own.

use skirmish_core::rng::Rng;

use super::actions::{ClientAction, ClientCommand, Cut, RegistryAction, ServerAction, ShellAction};
use super::plan::{Draft, pick};
use crate::draw::generator;
use crate::scenario::Shape;

/// Percent of the seeds whose one server has its registry in its own process.
const ALONE_PERCENT: u64 = 35;

/// Largest difference of the wall clocks of several servers, in milliseconds.
const SERVER_SKEW_MS: u64 = 400;

/// Percent of the seeds with drifting clocks.
const DRIFT_PERCENT: u64 = 40;

/// Largest drift of the clocks, in parts per million.
const MOST_DRIFT_PPM: u64 = 20_000;

/// Drift of the monotonic clocks on which leases run, in parts per million.
#[derive(Clone, Debug)]
pub(super) struct Drifts {
    pub(super) servers: Vec<i32>,
    /// Drift of the registry's clock, if the registry has a host of its own.
    pub(super) registry: i32,
}

/// Draws the drift of the clocks. The drift has a generator of its own, so that it changes no other
/// draw of a seed.
pub(super) fn draw_drifts(seed: u64, shape: &mut Shape) -> Drifts {
    let mut rng = generator(seed, "shell clocks");
    if rng.range(0..=99) < DRIFT_PERCENT {
        shape.drift_ppm = MOST_DRIFT_PPM;
    }
    let most = shape.drift_ppm;
    let mut drift = || {
        let above = i64::try_from(rng.range(0..=most * 2)).unwrap_or(0);
        i32::try_from(above - i64::try_from(most).unwrap_or(0)).unwrap_or(0)
    };
    Drifts { servers: (0..shape.node_count()).map(|_| drift()).collect(), registry: drift() }
}

/// Turns some seeds into clusters.
pub(super) fn draw_shape(dice: &mut Rng, shape: &mut Shape) {
    if dice.range(0..=99) < ALONE_PERCENT {
        return;
    }
    let node_lease_s = pick(dice, &[6, 6, 10]);
    let shape_of_all = *shape;
    *shape = Shape {
        // Take-overs between servers are worth more than those on one server.
        players: if dice.range(0..=1) == 0 { shape.players } else { shape.clients.div_ceil(2) },
        chaos_ms: shape.chaos_ms * pick(dice, &[1, 2, 3]),
        nodes: pick(dice, &[1, 2, 2, 3, 3, 3]),
        remote_registry: 1,
        wander_percent: pick(dice, &[0, 0, 20, 60]),
        node_skew_ms: SERVER_SKEW_MS,
        node_latency_us: shape_of_all.latency_us,
        node_jitter_us: shape_of_all.jitter_us,
        link_heartbeat_ms: pick(dice, &[500, 1_000]),
        registry_latency_us: shape_of_all.latency_us,
        registry_jitter_us: shape_of_all.jitter_us,
        registry_call_ms: pick(dice, &[500, 2_000]),
        registry_keepalive_ms: pick(dice, &[500, 2_000, 5_000]),
        node_lease_s,
        room_lease_s: node_lease_s * pick(dice, &[1, 2]),
        ..shape_of_all
    };
}

/// Returns the time after which every peer has given a silent host up, in milliseconds.
pub(super) fn unseen(shape: &Shape) -> u64 {
    let clients = shape.heartbeat_ms * 5;
    let others = shape.link_heartbeat_ms * 5;
    if shape.has_remote_registry() {
        clients.max(others).max(shape.registry_keepalive_ms * 2)
    } else {
        clients
    }
}

impl Draft {
    /// Draws the server of a fault.
    pub(super) fn any_server(&mut self) -> usize {
        match self.shape.node_count() as u64 {
            1 => 0,
            count => usize::try_from(self.dice.range(0..=count - 1)).unwrap_or(0),
        }
    }

    /// Draws the server that a client is cut off from; `None` for all.
    pub(super) fn one_server(&mut self) -> Option<usize> {
        let some = self.shape.node_count() > 1 && self.dice.range(0..=1) == 0;
        some.then(|| self.any_server())
    }

    /// Sets the clocks of servers wrong from the start.
    pub(super) fn skew_servers(&mut self, first: i64) {
        if self.shape.node_count() == 1 {
            return self.server(0, 0, ServerAction::Skew(first));
        }
        for server in 0..self.shape.node_count() {
            let most = self.shape.node_skew_ms.min(self.shape.skew_ms);
            let skew = self.dice.range(0..=most * 2);
            let skew = i64::try_from(skew).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
            self.server(0, server, ServerAction::Skew(skew));
        }
    }

    /// Draws whether to leave out a kind of fault that single servers have, too. Most failures
    /// among several servers show only while nothing else fails.
    pub(super) fn spares(&mut self) -> bool {
        self.shape.has_remote_registry() && self.dice.range(0..=99) < self.spared_percent
    }

    /// Adds the faults of clusters. Each kind of fault is in some of the seeds, and there rare or
    /// frequent.
    pub(super) fn cluster_faults(&mut self) {
        if !self.shape.has_remote_registry() {
            return;
        }
        let alone: [fn(&mut Self, u64); 8] = [
            Self::overtake,
            Self::cut_registry,
            Self::lag_watches,
            Self::blur_registry,
            Self::pause_registry,
            Self::restart_registry,
            Self::elect_registry,
            Self::compact_registry,
        ];
        let several: [fn(&mut Self, u64); 6] = [
            Self::move_client,
            Self::move_client,
            Self::strand,
            Self::cut_nodes,
            Self::cut_nodes,
            Self::kill_primary,
        ];
        let several = if self.shape.node_count() > 1 { &several[..] } else { &[] };
        for kind in several.iter().chain(&alone) {
            if self.dice.range(0..=99) < self.spared_percent.max(50) {
                continue;
            }
            let gap = pick(&mut self.dice, &[3_000_000, 8_000_000, 20_000_000]);
            let mut at = self.dice.range(500_000..=gap);
            while at < self.end {
                kind(self, at);
                at += self.dice.range(gap / 4..=gap * 2);
            }
        }
    }

    /// A client takes over the session of its player, mostly from another server, which does not
    /// learn of this for a while. The old client goes on.
    fn overtake(&mut self, at: u64) {
        let (clients, players) = (self.shape.clients, self.shape.players);
        let old = self.dice.range(0..=players - 1);
        if old + players >= clients {
            return;
        }
        let number = |client: u64| usize::try_from(client).unwrap_or(0);
        let (old, new) = (number(old), number(old + players));
        let (here, there) = (self.any_server(), self.any_server());
        let last = self.shape.rooms - 1;
        let room = u32::try_from(self.dice.range(0..=last)).unwrap_or(0);
        let join = ClientAction::Do(ClientCommand::Join { room, history: 0 });
        self.client(at, new, ClientAction::Kill);
        self.client(at, old, ClientAction::Move(here));
        self.client(at + 1_000, old, ClientAction::Start);
        self.client(at + 2_000, old, join);
        let then = at + 2_000_000;
        let over = then + pick(&mut self.dice, &[500_000, 3_000_000, 6_000_000]);
        if here == there {
            self.client(then, old, ClientAction::Cut(Cut::Down, None));
            self.client(over, old, ClientAction::Mend);
        } else {
            self.server(then, here, ServerAction::LagWatches(6_000));
            self.server(over, here, ServerAction::LagWatches(0));
        }
        self.client(then, new, ClientAction::Move(there));
        self.client(then + 1_000, new, ClientAction::Start);
        self.client(then + 2_000, new, join);
        let mut at = then;
        while at < over {
            self.client(at, old, ClientAction::Do(ClientCommand::Say { room, count: 1, size: 8 }));
            at += self.dice.range(20_000..=400_000);
        }
    }

    /// A client moves to another server. Its last messages reach the old server only after the new
    /// server has let the client in.
    fn strand(&mut self, at: u64) {
        let last = self.shape.clients - 1;
        let client = usize::try_from(self.dice.range(0..=last)).unwrap_or(0);
        let (here, there) = (self.any_server(), self.any_server());
        let rooms = self.shape.rooms - 1;
        let room = u32::try_from(self.dice.range(0..=rooms)).unwrap_or(0);
        self.client(at, client, ClientAction::Move(here));
        self.client(at, client, ClientAction::Do(ClientCommand::Join { room, history: 0 }));
        let then = at + 2_000_000;
        self.server(then, here, ServerAction::LagWatches(6_000));
        self.client(then, client, ClientAction::Cut(Cut::Up, Some(here)));
        self.client(then + 1_000, client, ClientAction::Do(ClientCommand::Say { room, count: 3, size: 8 }));
        self.client(then + 20_000, client, ClientAction::Move(there));
        self.client(then + 30_000, client, ClientAction::Do(ClientCommand::Say { room, count: 1, size: 8 }));
        let over = then + pick(&mut self.dice, &[100_000, 600_000, 3_000_000]);
        self.client(over, client, ClientAction::Mend);
        self.server(over + 3_000_000, here, ServerAction::LagWatches(0));
    }

    fn move_client(&mut self, at: u64) {
        let last = self.shape.clients - 1;
        let client = usize::try_from(self.dice.range(0..=last)).unwrap_or(0);
        let to = if self.dice.range(0..=3) == 0 {
            ClientAction::Reset
        } else {
            ClientAction::Move(self.any_server())
        };
        self.client(at, client, to);
    }

    fn cut_nodes(&mut self, at: u64) {
        let one = self.any_server();
        let others = self.shape.node_count() as u64 - 1;
        let step = usize::try_from(self.dice.range(1..=others)).unwrap_or(1);
        let other = (one + step) % self.shape.node_count();
        let (cut, end) = (self.any_cut(), at + self.while_of());
        self.steps.push((at, ShellAction::CutNodes(one, other, cut)));
        self.steps.push((end, ShellAction::HealNodes(one, other)));
    }

    fn kill_primary(&mut self, at: u64) {
        let last = self.shape.rooms - 1;
        let room = u32::try_from(self.dice.range(0..=last)).unwrap_or(0);
        let back = at + self.while_of();
        self.steps.push((at, ShellAction::KillPrimary(room)));
        self.steps.push((back, ShellAction::StartAll));
    }

    fn cut_registry(&mut self, at: u64) {
        let (server, cut, end) = (self.any_server(), self.any_cut(), at + self.while_of());
        self.server(at, server, ServerAction::CutRegistry(cut));
        self.server(end, server, ServerAction::HealRegistry);
    }

    fn lag_watches(&mut self, at: u64) {
        let (server, end) = (self.any_server(), at + self.while_of());
        let millis = pick(&mut self.dice, &[100, 1_000, 6_000]);
        self.server(at, server, ServerAction::LagWatches(millis));
        self.server(end, server, ServerAction::LagWatches(0));
    }

    fn blur_registry(&mut self, at: u64) {
        let server = self.any_server();
        let count = u32::try_from(self.dice.range(1..=4)).unwrap_or(1);
        self.server(at, server, ServerAction::BlurRegistry(count));
    }

    fn pause_registry(&mut self, at: u64) {
        let end = at + self.while_of();
        self.registry(at, RegistryAction::Pause);
        self.registry(end, RegistryAction::Resume);
    }

    fn restart_registry(&mut self, at: u64) {
        let end = at + self.while_of();
        if self.dice.range(0..=1) == 0 {
            // A silent death: no peer is notified.
            self.registry(at, RegistryAction::Cut);
            self.registry(at, RegistryAction::Pause);
            self.registry(end, RegistryAction::Kill);
            self.registry(end + 1_000, RegistryAction::Mend);
        } else {
            self.registry(at, RegistryAction::Kill);
        }
        self.registry(end + 2_000, RegistryAction::Start);
    }

    fn elect_registry(&mut self, at: u64) {
        let end = at + self.while_of().min(5_000_000);
        self.registry(at, RegistryAction::Depose);
        self.registry(end, RegistryAction::Elect);
    }

    fn compact_registry(&mut self, at: u64) {
        let keep = pick(&mut self.dice, &[0, 0, 1, 5, 20]);
        self.registry(at, RegistryAction::Compact(keep));
    }

    fn registry(&mut self, at: u64, action: RegistryAction) {
        self.steps.push((at, ShellAction::Registry(action)));
    }

    fn any_cut(&mut self) -> Cut {
        pick(&mut self.dice, &[Cut::Both, Cut::Up, Cut::Down])
    }

    /// Draws the length of a fault: shorter or longer than the life of leases.
    fn while_of(&mut self) -> u64 {
        let most = pick(&mut self.dice, &[200_000, 3_000_000, 20_000_000]);
        self.dice.range(most / 10..=most)
    }
}
