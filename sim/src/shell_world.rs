//! The command line of the shell world.

use std::path::PathBuf;

use skirmish_core::plant::Plant;
use skirmish_sim::outln;
use skirmish_sim::plants;
use skirmish_sim::report::plant_name;
use skirmish_sim::shell::hunt::{COVERAGE_MARK, ShellHuntPlan, ShellHuntTally, hunt};
use skirmish_sim::shell::run;
use skirmish_sim::world::RunOptions;

use crate::terminal::{ProgressLine, Stopwatch, bold, green, red};
use crate::{HuntArgs, ReplayArgs, conclude};

/// Seeds of a hunt without another limit. Each seed needs a process.
const SEEDS: u64 = 100;

/// Bugs that the first seeds of the shell world catch, too.
const PLANTS: [Plant; 12] = [
    Plant::AcknowledgedUnlogged,
    Plant::GapUnannounced,
    Plant::EpochReused,
    Plant::Unconflated,
    Plant::TombstoneForgotten,
    Plant::LeaseAssumed,
    Plant::ClaimUncompared,
    Plant::DeadFollowed,
    Plant::TicketUncompared,
    Plant::NoticeUnwatched,
    Plant::TicketForgotten,
    Plant::SearchForgotten,
];

/// Seeds after which the hunt for a bug ends. When this number was chosen, the bug that was caught
/// last needed a small part of them.
const PLANT_SEEDS: u64 = 300;

pub(crate) fn hunt_seeds(args: &HuntArgs) -> Result<bool, String> {
    let watch = Stopwatch::start(args.minutes);
    let plan = ShellHuntPlan {
        first: args.from,
        seeds: args.seeds.unwrap_or_else(|| if args.minutes.is_some() { u64::MAX } else { SEEDS }),
        jobs: args.jobs.unwrap_or_else(crate::processors),
        keep_going: args.keep_going,
        plant: args.plant,
        check_determinism: args.check_determinism,
        out: args.out.clone(),
    };
    outln!("hunting in the shell world from seed {}", args.from);
    let mut progress = ProgressLine::new();
    let show = |tally: &ShellHuntTally| {
        progress.show(|| format!("{} seeds, {} failed", tally.seeds, tally.failures.len()));
    };
    let tally = hunt(&plan, || !watch.is_over(), show).map_err(|error| error.to_string())?;
    progress.clear();
    let wall = watch.seconds();
    let (rate, world) = (tally.seeds as f64 / wall, tally.seconds / wall);
    outln!(
        "{} seeds in {wall:.1} s: {rate:.2} seeds, {world:.0} scenario-seconds per second; {} run twice, with the \
         same event log",
        tally.seeds,
        tally.repeated
    );
    outln!("{COVERAGE_MARK}\n{}", tally.coverage);
    for failure in &tally.failures {
        outln!("{} {:>20}  {}", red("failed:"), failure.seed, failure.description);
        outln!("{} {:>20}  {}", bold("log:   "), "", failure.log.display());
        let plant = args.plant.map_or_else(String::new, |plant| format!(" --plant {}", plant_name(plant)));
        outln!(
            "{} {:>20}  cargo sim replay --world shell {}{plant} --trace",
            bold("replay:"),
            "",
            failure.seed
        );
    }
    if tally.failures.is_empty() {
        outln!("{} no guarantee broken", green("ok:"));
    }
    Ok(tally.failures.is_empty())
}

/// Prints, for each of these bugs that the first seeds catch, the number of seeds until the bug is
/// caught, planted in the shell's servers and clients. Returns true if all are caught.
pub(crate) fn catch(plants: &[Plant], jobs: usize) -> Result<bool, String> {
    let mut all = true;
    outln!("{:<24}{:>10}  caught by, in the shell world", "planted bug", "seeds");
    for plant in PLANTS.into_iter().filter(|plant| plants.contains(plant)) {
        let name = plant_name(plant);
        match first_caught(plant, jobs)? {
            Some((seed, description)) => outln!("{name:<24}{:>10}  {description}", seed + 1),
            None => {
                all = false;
                outln!("{name:<24}{PLANT_SEEDS:>10}  {} as {}", red("not caught"), plants::codes(plant));
            }
        }
    }
    Ok(all)
}

/// Returns the first seed that breaks one of the planted bug's guarantees with the bug, and none
/// without it, together with a description of the breach.
fn first_caught(plant: Plant, jobs: usize) -> Result<Option<(u64, String)>, String> {
    let mut progress = ProgressLine::new();
    let (mut first, mut others) = (0, 0);
    while first < PLANT_SEEDS {
        let plan = ShellHuntPlan {
            first,
            seeds: PLANT_SEEDS - first,
            jobs,
            keep_going: false,
            plant: Some(plant),
            check_determinism: false,
            out: PathBuf::from("target/sim/plants"),
        };
        let show = |tally: &ShellHuntTally| {
            progress.show(|| crate::hunted(plant, first + tally.seeds, others));
        };
        let tally = hunt(&plan, || true, show).map_err(|error| error.to_string())?;
        progress.clear();
        let Some(failure) = tally.failures.into_iter().next() else { return Ok(None) };
        first = failure.seed + 1;
        if !failure.guarantee.is_some_and(|broken| plants::broken_by(plant).contains(&broken)) {
            others += 1;
            continue;
        }
        let without = ShellHuntPlan { first: failure.seed, seeds: 1, plant: None, ..plan };
        if hunt(&without, || true, |_| ()).map_err(|error| error.to_string())?.failures.is_empty() {
            return Ok(Some((failure.seed, failure.description)));
        }
    }
    Ok(None)
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<bool, String> {
    let seed = args.seed.ok_or("the shell world replays seeds only")?;
    let outcome = run(seed, RunOptions { plant: args.plant, traced: args.trace });
    outln!("{COVERAGE_MARK}\n{}", outcome.coverage);
    conclude(&outcome);
    Ok(outcome.violation.is_none())
}
