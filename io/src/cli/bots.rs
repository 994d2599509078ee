//! `skirmish bots`.

use clap::Args;

use super::{CommandFailure, output};
use crate::bots::{self, Interrupts, Options, Verdict};

const EXAMPLES: &str = "\
Examples:
  skirmish bots --players 1000 --rate 2 --duration 30s --disconnect-rate 0.01
      Battles in rooms of ten, on a server in this process; connections are cut.
  skirmish bots --match duel --players 200 --duration 30s
      Matches: players queue, battle for five seconds, leave, and queue again.
  skirmish bots --match squads --players 500 --party-share 40 --cancel-rate 0.1
      Two teams of five; of ten players four come in parties of two, and every tenth
      search is given up.
  skirmish bots --match ffa --teams 10 --team-size 1 --players 100
      Ten players, each for himself.
  skirmish bots --match duel --server wss://game.example/ --config skirmish.toml
      Another server, which has a queue of that mode. Its keys sign the players' tokens.

Matches: `last ticket to all told` is from the moment when the youngest ticket of a match
was queued to that when the last of its players was told, and so also counts how long a
player that was cut off was away. Queues search every 250 ms (`interval`), so half of that
is spent waiting for the next search on average.

Verdict: G1 to G5 in every room, and in match mode G8: nobody is in two live matches,
all players of a match are told the same teams, each is in exactly one of them, parties
stay together, whoever has left a match is not told of it again, and every ticket has an
end. Each is `held`, `BROKEN`, or `unknown`: something was under way still when --patience
was over, so nobody can say. Then raise --patience above the longest time that the server
was out of reach, or look at the server: its log, and /readyz at its admin address.

Ctrl-C, and SIGHUP when the terminal is closed, end what is going on; what was measured until
then is reported. A second one ends the wait for what is still under way.

Exit code: 0 if everything held; 1 if something was broken, or the players could not get
in; 2 if it was asked wrongly; 3 if nothing was broken, but something is unknown.";

/// Drive many players through the real client, and check the guarantees that they see.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bots {
    #[command(flatten)]
    options: Options,
}

impl Bots {
    pub(super) fn run<I: Interrupts>(self, interrupts: impl FnOnce() -> I) -> Result<(), CommandFailure> {
        let (json, patience) = (self.options.json, self.options.patience);
        let report = bots::run(self.options, interrupts).map_err(|error| match error {
            bots::Error::Option { .. } => CommandFailure::Usage(error.to_string()),
            _ => CommandFailure::Failed(error.to_string()),
        })?;
        let printed =
            output::print(&if json { format!("{}\n", report.to_json()) } else { format!("{report}\n") });
        match report.verdict() {
            Verdict::Held => printed,
            Verdict::Broken => Err(CommandFailure::Failed("not everything held".to_owned())),
            Verdict::Unknown => Err(CommandFailure::Unknown(format!(
                "nothing was seen broken, but players were away, behind or without an answer when --patience \
                 ({}) was over: raise it, or look at the server's log and its /readyz",
                humantime::format_duration(patience)
            ))),
        }
    }
}
