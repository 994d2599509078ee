//! The command `cargo sim tree`.

use clap::Args;
use skirmish_core::plant::Plant;
use skirmish_sim::coverage::Coverage;
use skirmish_sim::hunt::{HuntPlan, SeedOutcome, hunt_with};
use skirmish_sim::plants::{Simulation, simulation};
use skirmish_sim::report::{plant_name, plant_of};
use skirmish_sim::tree::{TreeOutcome, TreeRow, draw, measure, run};
use skirmish_sim::world::RunOptions;
use skirmish_sim::{outln, print};

use crate::terminal::{ProgressLine, Stopwatch, green, red};

/// Most nodes of a seed, by default.
const NODES: u64 = 64;

/// Sizes in the table, by default.
const SIZES: [u64; 3] = [10, 100, 1_000];

/// Fan-outs in the table, by default.
const FAN_OUTS: [usize; 3] = [2, 4, 8];

#[derive(Args)]
pub(crate) struct TreeArgs {
    /// Most nodes of a seed, and the only size in the table [default: 64; 10, 100 and 1000 in
    /// the table].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=10_000))]
    nodes: Option<u64>,
    /// Most children of a node, from 2 to 8 [default: drawn; 2, 4 and 8 in the table].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(2..=8))]
    fan_out: Option<u8>,
    /// Number of seeds; 0 prints the table only.
    #[arg(long, default_value_t = 200, value_name = "N")]
    seeds: u64,
    /// The first seed, and the seed of the table: a number, or a commit hash.
    #[arg(long, default_value = "0", value_name = "SEED", value_parser = crate::seed)]
    from: u64,
    /// Plants a bug of the tree; see `plants`.
    #[arg(long, value_name = "NAME", value_parser = plant_of_tree)]
    plant: Option<Plant>,
    /// Seeds run at a time [default: one for each processor].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Runs the first seed only, and prints everything that happens.
    #[arg(long)]
    trace: bool,
}

fn plant_of_tree(name: &str) -> Result<Plant, String> {
    let plant = plant_of(name)?;
    if simulation(plant) == Simulation::Tree {
        return Ok(plant);
    }
    Err("this bug is not in the broadcast tree: see `cargo sim hunt --plant`".to_owned())
}

/// Runs a seed with the default sizes, for the hunt for a planted bug.
pub(crate) fn run_seed(seed: u64, plant: Option<Plant>) -> SeedOutcome {
    result(run(&draw(seed, NODES, None), RunOptions { plant, traced: false }))
}

fn result(outcome: TreeOutcome) -> SeedOutcome {
    let TreeOutcome { violation, micros, .. } = outcome;
    SeedOutcome { micros, violation, coverage: Coverage::default() }
}

/// Hunts, and prints the table if no seed fails. Returns true if none fails.
pub(crate) fn hunt_trees(args: &TreeArgs) -> bool {
    let (most, fan_out) = (args.nodes.unwrap_or(NODES), args.fan_out.map(usize::from));
    if args.trace {
        let options = RunOptions { plant: args.plant, traced: true };
        let outcome = run(&draw(args.from, most, fan_out), options);
        for (at, text) in &outcome.trace {
            outln!("{:>5}.{:06}  {text}", at / 1_000_000, at % 1_000_000);
        }
        return conclude(
            args,
            result(outcome).violation.map(|(at, violation)| (args.from, at, violation.to_string())),
        );
    }
    let watch = Stopwatch::start(None);
    let jobs = args.jobs.unwrap_or_else(crate::processors);
    let plan = HuntPlan { first: args.from, seeds: args.seeds, jobs, keep_going: false, plant: args.plant };
    let mut progress = ProgressLine::new();
    let run_one =
        |seed| result(run(&draw(seed, most, fan_out), RunOptions { plant: args.plant, traced: false }));
    let tally =
        hunt_with(&plan, run_one, || true, |tally| progress.show(|| format!("{} seeds", tally.seeds)));
    progress.clear();
    outln!("{} seeds of up to {most} nodes in {:.1} s", tally.seeds, watch.seconds());
    let failure = tally.failures.into_iter().next();
    let failure = failure.map(|failure| (failure.seed, failure.at, failure.violation.to_string()));
    conclude(args, failure) && (args.plant.is_some() || table(args))
}

/// Prints the verdict. Returns true if nothing failed.
fn conclude(args: &TreeArgs, failure: Option<(u64, u64, String)>) -> bool {
    let Some((seed, at, violation)) = failure else {
        outln!("{} no guarantee broken", green("ok:"));
        return true;
    };
    outln!("{} seed {seed}: {violation} (at {:.6} s)", red("broken:"), at as f64 / 1e6);
    let mut replay = format!("cargo sim tree --from {seed} --trace");
    if let Some(nodes) = args.nodes {
        replay += &format!(" --nodes {nodes}");
    }
    if let Some(fan_out) = args.fan_out {
        replay += &format!(" --fan-out {fan_out}");
    }
    if let Some(plant) = args.plant {
        replay += &format!(" --plant {}", plant_name(plant));
    }
    outln!("replay: {replay}");
    false
}

/// Measures and prints the table. Returns true if no run breaks a guarantee.
fn table(args: &TreeArgs) -> bool {
    outln!("\n{}", TreeRow::HEAD);
    let sizes = args.nodes.map_or_else(|| SIZES.to_vec(), |nodes| vec![nodes]);
    let fan_outs = args.fan_out.map_or_else(|| FAN_OUTS.to_vec(), |fan_out| vec![fan_out.into()]);
    for nodes in sizes {
        for fan_out in &fan_outs {
            match measure(args.from, nodes, *fan_out) {
                Ok(row) => print::text(format_args!("{row}\n")),
                Err((at, violation)) => {
                    outln!("{} {nodes} nodes, fan-out {fan_out}: {violation} (at {at} us)", red("broken:"));
                    return false;
                }
            }
        }
    }
    true
}
