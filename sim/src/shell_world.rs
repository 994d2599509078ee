//! The command line of the shell world.

use skirmish_sim::report::plant_name;
use skirmish_sim::shell::hunt::{COVERAGE_MARK, Plan, Tally, hunt};
use skirmish_sim::shell::run;
use skirmish_sim::world::Options;

use crate::terminal::{Progress, Stopwatch, bold, green, red};
use crate::{HuntArgs, ReplayArgs, conclude};

/// Seeds if nothing else limits the hunt: each takes a process.
const SEEDS: u64 = 100;

pub(crate) fn hunt_seeds(args: &HuntArgs) -> Result<bool, String> {
    let watch = Stopwatch::start(args.minutes);
    let plan = Plan {
        first: args.from,
        seeds: args.seeds.unwrap_or_else(|| if args.minutes.is_some() { u64::MAX } else { SEEDS }),
        jobs: args.jobs.unwrap_or_else(crate::processors),
        keep_going: args.keep_going,
        plant: args.plant,
        check_determinism: args.check_determinism,
        out: args.out.clone(),
    };
    println!("hunting in the shell world from seed {}", args.from);
    let mut progress = Progress::new();
    let show = |tally: &Tally| {
        progress.show(|| format!("{} seeds, {} failed", tally.seeds, tally.failures.len()));
    };
    let tally = hunt(&plan, || !watch.is_over(), show).map_err(|error| error.to_string())?;
    progress.clear();
    let wall = watch.seconds();
    let (rate, world) = (tally.seeds as f64 / wall, tally.seconds / wall);
    println!(
        "{} seeds in {wall:.1} s: {rate:.2} seeds, {world:.0} scenario-seconds per second; {} run twice, with the \
         same event log",
        tally.seeds, tally.repeated
    );
    println!("{COVERAGE_MARK}\n{}", tally.coverage);
    for failure in &tally.failures {
        println!("{} {:>20}  {}", red("failed:"), failure.seed, failure.what);
        println!("{} {:>20}  {}", bold("log:   "), "", failure.log.display());
        let plant = args.plant.map_or_else(String::new, |plant| format!(" --plant {}", plant_name(plant)));
        println!(
            "{} {:>20}  cargo sim replay --world shell {}{plant} --trace",
            bold("replay:"),
            "",
            failure.seed
        );
    }
    if tally.failures.is_empty() {
        println!("{} no guarantee broken", green("ok:"));
    }
    Ok(tally.failures.is_empty())
}

pub(crate) fn replay(args: &ReplayArgs) -> Result<bool, String> {
    let seed = args.seed.ok_or("the shell world replays seeds only")?;
    let outcome = run(seed, Options { plant: args.plant, traced: args.trace });
    println!("{COVERAGE_MARK}\n{}", outcome.coverage);
    conclude(&outcome);
    Ok(outcome.violation.is_none())
}
