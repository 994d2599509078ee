//! Options of `skirmish bots`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use skirmish_core::id::MAX_NAME;

use super::Error;
use super::body::Tag;
use super::match_mode::MatchOptions;

/// Drives many players through the real client over real sockets, and checks the guarantees that
/// they see.
///
/// Without --server a server is started in this process, so the whole thing works with one
/// command. The exit code is 0 only if every guarantee held, and 3 if that is not known.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Address of the server, such as ws://127.0.0.1:9500/, or addresses of several nodes of
    /// a cluster. The players are dealt out to the nodes in turn, and each goes on to the next
    /// node after every lost connection and every failed dial. Without it a server is started
    /// in this process, on a free loopback port, with limits that fit the load.
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    pub server: Vec<String>,

    /// Behaviour of the players.
    #[arg(long, value_enum, default_value_t = Mode::Battle)]
    pub mode: Mode,

    /// Players; each has a token and a connection of its own. In churn mode, players that take
    /// turns, at least --inflight.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub players: u32,

    /// Players in each room; there are players / room-size rooms, rounded up.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub room_size: u32,

    /// Messages per second and player.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2.0)]
    pub rate: f64,

    /// Size of a message's body in bytes, at least 20: sender, number and due time ride in
    /// it.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,

    /// Reliable messages reach everybody in the room, their sender included; of latest ones
    /// only the newest counts, and the sender does not get its own.
    #[arg(long, value_enum, default_value_t = MessageClass::Reliable)]
    pub class: MessageClass,

    /// Measured time; at least 1ms.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = some_time)]
    pub duration: Duration,

    /// Time for which the players send before measuring begins.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,

    /// Relation of the players' schedules to each other: evenly spread over the interval between
    /// two messages, those of one room as far apart as they can be; or at random.
    #[arg(long, value_enum, default_value_t = SchedulePhase::Random)]
    pub phase: SchedulePhase,

    /// Share of the players whose connection is cut each second, without a closing
    /// handshake: 0.01 cuts every hundredth.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub disconnect_rate: f64,

    /// Keep the core busy instead of sleeping when there is nothing to do, so that the server
    /// does not pay for waking the bots. For comparing its CPU with that under a generator
    /// that polls; pin both to cores of their own.
    #[arg(long)]
    pub spin: bool,

    /// Entries from before the join that each player asks for.
    #[arg(long, value_name = "ENTRIES", default_value_t = 0)]
    pub history: u32,

    /// Seal payloads (AEAD) in both directions.
    #[arg(long)]
    pub seal: bool,

    /// Process id of the server, to report its CPU time and memory. Not needed without
    /// --server.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,

    /// Configuration file of the server (TOML): its keys sign the players' tokens.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key_file", "token"])]
    pub config: Option<PathBuf>,

    /// File with the secret (HS256) that signs the players' tokens.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub key_file: Option<PathBuf>,

    /// Name of that key (`kid`), as the server's configuration has it.
    #[arg(long, value_name = "ID", default_value = "bots", requires = "key_file")]
    pub key_id: String,

    /// One token for everybody. A token names one player, who has one session, so this is
    /// for a single bot.
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// Players are named PREFIX-0, PREFIX-1, ..., their rooms PREFIX-room-0, ...
    #[arg(long, value_name = "PREFIX", default_value = "bot")]
    pub prefix: String,

    /// Players that may be on their way into a room at a time, at the start.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub connect_inflight: u32,

    /// Longest wait for another player to get into its room at the start, and for everything to be
    /// delivered at the end. A message still in flight after this time is not known to be lost: the
    /// verdict is `unknown`, and the exit code 3.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = some_time)]
    pub patience: Duration,

    /// In churn mode, connections in the making at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub inflight: u32,

    /// Seed of everything that is random here.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,

    /// Options of the match mode.
    #[command(flatten)]
    pub matches: MatchOptions,
}

/// Behaviour of the players.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Join a room and send messages on a schedule.
    Battle,
    /// Join a room and stay.
    Idle,
    /// Connect, authenticate, join, leave and close, over and over, as fast as --inflight
    /// allows.
    Churn,
}

/// Class of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageClass {
    /// Sequenced, logged, acknowledged.
    Reliable,
    /// Newest wins.
    Latest,
}

/// Relation of the players' schedules to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchedulePhase {
    /// Evenly.
    Spread,
    /// At random.
    Random,
}

impl Options {
    /// Checks the constraints that the types do not express.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad =
            |option: &'static str, problem: &str| Err(Error::Option { option, problem: problem.to_owned() });
        if self.players == 0 {
            return bad("--players", "at least one");
        }
        if self.room_size == 0 {
            return bad("--room-size", "at least one");
        }
        if !(self.rate > 0.0 && self.rate <= 100_000.0) {
            return bad("--rate", "more than 0 and at most 100000");
        }
        if self.size < Tag::SIZE {
            return bad("--size", "at least 20 bytes");
        }
        if !(0.0..=10.0).contains(&self.disconnect_rate) {
            return bad("--disconnect-rate", "from 0 to 10");
        }
        if self.duration.is_zero() {
            return bad("--duration", "more than nothing");
        }
        if self.connect_inflight == 0 || self.inflight == 0 {
            return bad("--connect-inflight and --inflight", "at least one");
        }
        if self.token.is_some() && (self.players > 1 || self.mode == Mode::Churn && self.inflight > 1) {
            return bad(
                "--token",
                "names one player: give --key-file or --config, or --players 1 --inflight 1",
            );
        }
        if !self.server.is_empty() && self.token.is_none() && self.key_file.is_none() && self.config.is_none()
        {
            return bad("--server", "needs --key-file, --config or --token for the players' tokens");
        }
        self.matches.check(self.players)?;
        // The longest suffix is that of the last room.
        if self.prefix.len() + "-room-4294967295".len() > MAX_NAME {
            return bad("--prefix", "too long");
        }
        Ok(())
    }

    /// Returns the time between two messages of a player.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }

    pub(super) fn player(&self, player: u32) -> String {
        format!("{}-{player}", self.prefix)
    }

    pub(super) fn room(&self, player: u32) -> String {
        format!("{}-room-{}", self.prefix, player / self.room_size)
    }

    /// Returns a player's place in an evenly spread schedule, from 0 to below 1. Neighbours in the
    /// schedule are in different rooms, and the members of a room are as far apart as possible. If
    /// members sent together, the server could deliver their messages in one write, and would look
    /// several times cheaper than it is.
    pub(super) fn place(&self, player: u32) -> f64 {
        let (room, member) = (player / self.room_size, player % self.room_size);
        (f64::from(member) + f64::from(room) / f64::from(self.rooms())) / f64::from(self.room_size)
    }

    pub(super) const fn rooms(&self) -> u32 {
        self.players.div_ceil(self.room_size)
    }
}

/// Parses a time that is not zero.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.as_millis() == 0 { Err("must be at least 1ms".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(arguments: &[&str]) -> Options {
        Cli::try_parse_from([&["bots"], arguments].concat()).unwrap().options
    }

    #[test]
    fn defaults_pass_the_checks() {
        parse(&[]).check().unwrap();
        parse(&["--mode", "churn", "--class", "latest", "--disconnect-rate", "0.5"]).check().unwrap();
    }

    #[test]
    fn members_of_a_room_are_spread_over_the_whole_interval() {
        let options = parse(&["--players", "1000", "--room-size", "10"]);
        let mut places: Vec<f64> = (0..1_000).map(|player| options.place(player)).collect();
        for room in places.chunks(10) {
            assert!(room.windows(2).all(|pair| (pair[1] - pair[0] - 0.1).abs() < 1e-9), "{room:?}");
        }
        places.sort_by(f64::total_cmp);
        assert!((0.0..1.0).contains(&places[0]) && places[999] < 1.0);
        assert!(places.windows(2).all(|pair| (pair[1] - pair[0] - 0.001).abs() < 1e-9));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (arguments, option) in [
            (&["--players", "0"][..], "--players"),
            (&["--rate", "0"], "--rate"),
            (&["--rate", "nan"], "--rate"),
            (&["--size", "19"], "--size"),
            (&["--disconnect-rate", "11"], "--disconnect-rate"),
            (&["--token", "x"], "--token"),
            (&["--server", "ws://127.0.0.1:1/"], "--server"),
        ] {
            let Err(Error::Option { option: named, .. }) = parse(arguments).check() else {
                panic!("{arguments:?} passed");
            };
            assert_eq!(named, option, "{arguments:?}");
        }
    }
}
