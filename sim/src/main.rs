//! The command line of the simulator.

#[cfg_attr(not(all(feature = "shell", madsim)), path = "shell_absent.rs")]
mod shell_world;
mod terminal;
mod tree_command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use skirmish_core::plant::Plant;
use skirmish_sim::draw::draw;
use skirmish_sim::hunt::{FailedSeed, HuntPlan, hunt, hunt_with, run_seed};
use skirmish_sim::plants::{self, Simulation, simulation};
use skirmish_sim::report::{FailureReport, plant_name, plant_of};
use skirmish_sim::scenario::Scenario;
use skirmish_sim::world::{RunOptions, RunOutcome, run};
use skirmish_sim::{outln, picture, print, shrink};
use terminal::{ProgressLine, Stopwatch, bold, green, red};
use tree_command::{TreeArgs, hunt_trees};

/// Simulates Skirmish: draws a scenario from a seed, runs the real machines through its
/// faults, and checks every guarantee.
///
/// The same seed always gives the same run. A seed that fails is made shorter, and
/// reported with the guarantee that it breaks, the command that replays it, and a page
/// with its picture.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", version, after_help = EXAMPLES)]
struct SimCli {
    #[command(subcommand)]
    command: SimCommand,
}

const EXAMPLES: &str = "Examples:
  cargo sim hunt --seeds 10000                     look for a seed that fails
  cargo sim hunt --minutes 10 --from $(git rev-parse HEAD)
  cargo sim replay 4711 --trace                    see what happens in a seed, line by line
  cargo sim replay --schedule failure.scenario --html failure.html
  cargo sim plants                                 see that every planted bug is caught
  cargo sim tree --fan-out 4                       simulate the broadcast tree alone";

#[derive(Subcommand)]
enum SimCommand {
    /// Runs one seed after the other and stops at the first that fails.
    ///
    /// Exit code 0: none failed; 1: at least one did.
    Hunt(HuntArgs),
    /// Runs one seed, or one schedule, again.
    ///
    /// Exit code 0: it holds; 1: it breaks a guarantee.
    Replay(ReplayArgs),
    /// Plants each bug there is and hunts until the oracle of a guarantee that it breaks
    /// catches it; then some of them in the shell world, too.
    ///
    /// Exit code 0: every bug is caught; 1: at least one is not.
    Plants {
        /// Bugs to plant [default: all].
        #[arg(value_name = "NAME", value_parser = plant_of)]
        plants: Vec<Plant>,
        /// Gives up on a bug after this many seeds of the machine world.
        #[arg(long, default_value_t = 2_000, value_name = "N")]
        seeds: u64,
        /// Seeds run at a time [default: one for each processor].
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
    },
    /// Simulates the broadcast tree of a room alone: runs seeds, then measures trees.
    ///
    /// Nodes join, leave and die, and latencies and weights change, while the room's primary
    /// broadcasts entries. The table shows the fan-outs 2, 4 and 8 with 10, 100 and 1000 nodes.
    ///
    /// Exit code 0: no guarantee is broken; 1: one is.
    Tree(TreeArgs),
    /// Prints the scenario of a seed, in the form that `replay --schedule` reads.
    Show {
        /// The seed: a number, or a commit hash.
        #[arg(value_parser = seed)]
        seed: u64,
    },
}

#[derive(Args)]
struct HuntArgs {
    /// Number of seeds [default: 1000, or as many as fit into --minutes].
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed: a number, or a commit hash [default: 0].
    #[arg(long, default_value = "0", value_parser = seed, hide_default_value = true)]
    from: u64,
    /// Stops after this many minutes.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Plants a bug; see `plants`.
    #[arg(long, value_name = "NAME", value_parser = plant_of)]
    plant: Option<Plant>,
    /// Kind of world.
    #[arg(long, value_enum, default_value_t = WorldKind::Machine)]
    world: WorldKind,
    /// Seeds run at a time [default: one for each processor].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Goes on after a failure and lists all at the end.
    #[arg(long)]
    keep_going: bool,
    /// In the shell world: runs every seed twice, and not only the first.
    #[arg(long)]
    check_determinism: bool,
    /// Directory for the report of a failing seed.
    #[arg(long, default_value = "target/sim", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Args)]
struct ReplayArgs {
    /// The seed: a number, or a commit hash.
    #[arg(value_parser = seed, required_unless_present = "schedule")]
    seed: Option<u64>,
    /// A file with a scenario, instead of a seed.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    schedule: Option<PathBuf>,
    /// Plants a bug; see `plants`.
    #[arg(long, value_name = "NAME", value_parser = plant_of)]
    plant: Option<Plant>,
    /// Kind of world.
    #[arg(long, value_enum, default_value_t = WorldKind::Machine, conflicts_with_all = ["schedule", "shrink", "html"])]
    world: WorldKind,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Leaves out the steps that the failure does not need.
    #[arg(long)]
    shrink: bool,
    /// Draws the run as one HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Kind of simulated world.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorldKind {
    /// Bare machines: fast.
    Machine,
    /// The real shell, with its sockets and tasks simulated.
    Shell,
}

fn main() -> ExitCode {
    let result = match SimCli::parse().command {
        SimCommand::Hunt(args) => hunt_seeds(&args),
        SimCommand::Replay(args) => replay(&args),
        SimCommand::Plants { plants, seeds, jobs } => {
            let plants = if plants.is_empty() { &Plant::ALL[..] } else { &plants };
            let jobs = jobs.unwrap_or_else(processors);
            let all = catch(plants, seeds, jobs);
            shell_world::catch(plants, jobs).map(|others| all && others)
        }
        SimCommand::Tree(args) => Ok(hunt_trees(&args)),
        SimCommand::Show { seed } => {
            print::text(format_args!("{}", draw(seed)));
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} {error}", red("error:"));
            ExitCode::from(2)
        }
    }
}

/// Parses a number, or the first 64 bits of a commit hash.
fn seed(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let digits = text.get(..text.len().min(16)).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| "a seed is a number or a commit hash".to_owned())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Refuses a planted bug that no world has.
fn check_plant(plant: Option<Plant>) -> Result<(), String> {
    match plant {
        Some(plant) if simulation(plant) == Simulation::Tree => {
            Err(format!("this bug is in the broadcast tree: cargo sim tree --plant {}", plant_name(plant)))
        }
        _ => Ok(()),
    }
}

fn hunt_seeds(args: &HuntArgs) -> Result<bool, String> {
    check_plant(args.plant)?;
    if args.world == WorldKind::Shell {
        return shell_world::hunt_seeds(args);
    }
    let watch = Stopwatch::start(args.minutes);
    let seeds = args.seeds.unwrap_or_else(|| if args.minutes.is_some() { u64::MAX } else { 1_000 });
    let plan = HuntPlan {
        first: args.from,
        seeds,
        jobs: args.jobs.unwrap_or_else(processors),
        keep_going: args.keep_going,
        plant: args.plant,
    };
    outln!("hunting from seed {}", args.from);
    let mut progress = ProgressLine::new();
    let tally = hunt(
        &plan,
        || !watch.is_over(),
        |tally| {
            progress.show(|| {
                let rate = tally.micros as f64 / 1e6 / watch.seconds();
                format!(
                    "{} seeds, {} failed, {rate:.0} scenario-seconds/s",
                    tally.seeds,
                    tally.failures.len()
                )
            });
        },
    );
    progress.clear();
    let (wall, world) = (watch.seconds(), tally.micros as f64 / 1e6);
    outln!("{} seeds in {wall:.1} s: {:.0} scenario-seconds per second", tally.seeds, world / wall);
    outln!("coverage marks:\n{}", tally.coverage);
    if args.keep_going {
        table(&tally.failures);
    }
    let Some(first) = tally.failures.first() else {
        outln!("{} no guarantee broken", green("ok:"));
        return Ok(true);
    };
    report_failure(first.seed, args.plant, &args.out)?;
    Ok(false)
}

fn table(failures: &[FailedSeed]) {
    for failure in failures {
        let seconds = failure.at as f64 / 1e6;
        outln!("{:>20}  {seconds:>9.3} s  {}", failure.seed, failure.violation);
    }
}

/// Reports a failing seed on the terminal and in files.
fn report_failure(seed: u64, plant: Option<Plant>, out: &Path) -> Result<(), String> {
    let report = FailureReport::of_seed(seed, plant)
        .ok_or_else(|| format!("seed {seed} failed and does not fail again: the run is not deterministic"))?;
    let text = report.to_string();
    let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
    outln!("{}\n{rest}", red(head));
    fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let schedule = out.join(format!("seed-{seed}.scenario"));
    write(&schedule, &report.scenario.to_string())?;
    let html = out.join(format!("seed-{seed}.html"));
    write(&html, &report.page())?;
    let plant = plant.map_or_else(String::new, |plant| format!(" --plant {}", plant_name(plant)));
    outln!("{}  {}", bold("picture:"), html.display());
    outln!("{}   cargo sim replay {seed}{plant} --trace", bold("replay:"));
    outln!("{} cargo sim replay --schedule {}{plant} --trace", bold("shortest:"), schedule.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn replay(args: &ReplayArgs) -> Result<bool, String> {
    check_plant(args.plant)?;
    if args.world == WorldKind::Shell {
        return shell_world::replay(args);
    }
    let mut scenario: Scenario = match (&args.schedule, args.seed) {
        (Some(path), _) => {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            text.parse().map_err(|error| format!("{}: {error}", path.display()))?
        }
        (None, seed) => draw(seed.unwrap_or(0)),
    };
    let options = RunOptions { plant: args.plant, traced: args.trace || args.html.is_some() };
    if args.shrink
        && let Some((_, violation)) = run(&scenario, options).violation
    {
        scenario = shrink::shrink(&scenario, options, violation.guarantee, 2_000).scenario;
        print::text(format_args!("{scenario}"));
    }
    let outcome = run(&scenario, options);
    if args.trace {
        for record in &outcome.history.records {
            let (seconds, micros) = (record.at / 1_000_000, record.at % 1_000_000);
            outln!("{seconds:>5}.{micros:06}  {:<9} {}", record.lane.to_string(), record.text);
        }
    }
    if let Some(path) = &args.html {
        write(path, &picture::page(&scenario, &outcome))?;
    }
    conclude(&outcome);
    Ok(outcome.violation.is_none())
}

fn conclude(outcome: &RunOutcome) {
    outln!("{:.3} s of the world's time, event log {:016x}", outcome.micros as f64 / 1e6, outcome.hash);
    match &outcome.violation {
        None => outln!("{} no guarantee broken", green("ok:")),
        Some((at, violation)) => {
            outln!("{} {violation} (at {:.6} s)", red("broken:"), *at as f64 / 1e6);
        }
    }
}

/// Prints the number of seeds until each planted bug is caught. Returns true if all are caught.
fn catch(plants: &[Plant], seeds: u64, jobs: usize) -> bool {
    let mut all = true;
    outln!("{:<24}{:>10}  caught by", "planted bug", "seeds");
    for &plant in plants {
        let name = plant_name(plant);
        match first_caught(plant, seeds, jobs) {
            Some(failure) => {
                let (seed, violation) = (failure.seed + 1, &failure.violation);
                outln!("{name:<24}{seed:>10}  {}: {}", violation.guarantee.code(), violation.description);
            }
            None => {
                all = false;
                outln!("{name:<24}{seeds:>10}  {} as {}", red("not caught"), plants::codes(plant));
            }
        }
    }
    all
}

/// Returns the first seed that breaks one of the planted bug's guarantees with the bug, and none
/// without it.
fn first_caught(plant: Plant, seeds: u64, jobs: usize) -> Option<FailedSeed> {
    let (mut first, mut others) = (0, 0);
    let mut progress = ProgressLine::new();
    let run_one = match simulation(plant) {
        Simulation::World => run_seed,
        Simulation::Tree => tree_command::run_seed,
    };
    while first < seeds {
        let plan = HuntPlan { first, seeds: seeds - first, jobs, keep_going: false, plant: Some(plant) };
        let tally = hunt_with(
            &plan,
            |seed| run_one(seed, Some(plant)),
            || true,
            |tally| progress.show(|| hunted(plant, first + tally.seeds, others)),
        );
        progress.clear();
        let failure = tally.failures.into_iter().next()?;
        if !plants::broken_by(plant).contains(&failure.violation.guarantee) {
            others += 1;
        } else if run_one(failure.seed, None).violation.is_none() {
            return Some(failure);
        }
        first = failure.seed + 1;
    }
    None
}

/// Returns the progress of the hunt for a planted bug: the number of seeds, and the number of seeds
/// that broke other guarantees than the bug's.
fn hunted(plant: Plant, seeds: u64, others: u64) -> String {
    let others = if others == 0 { String::new() } else { format!(", {others} broke something else") };
    format!("{}: {seeds} seeds{others}", plant_name(plant))
}
