//! Runs many seeds, each in a process of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use skirmish_core::plant::Plant;

use crate::coverage::{Coverage, MARKS};
use crate::oracle::Guarantee;
use crate::report::plant_name;

/// Most processes at a time.
const JOBS: usize = 2;

/// Real time after which a process counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(300);
/// Interval of checks of a process.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Text before the hash in a process's last words.
const HASH_MARK: &str = "event log ";

/// Text before the coverage that a process prints.
pub const COVERAGE_MARK: &str = "coverage marks:";

/// Seeds of a hunt, and the way to run them.
#[derive(Clone, Debug)]
pub struct ShellHuntPlan {
    /// The first seed.
    pub first: u64,
    /// Most seeds to run.
    pub seeds: u64,
    /// Processes at a time; two at most.
    pub jobs: usize,
    /// True if the hunt continues after a failure.
    pub keep_going: bool,
    /// Bug to plant.
    pub plant: Option<Plant>,
    /// True if every seed is run twice, and not only the first.
    pub check_determinism: bool,
    /// Directory for the logs of failing seeds.
    pub out: PathBuf,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct ShellFailedSeed {
    /// The seed.
    pub seed: u64,
    /// The broken guarantee; `None` for a failure of another kind.
    pub guarantee: Option<Guarantee>,
    /// Description of the failure, as its process printed it.
    pub description: String,
    /// Path of the log of the whole run.
    pub log: PathBuf,
}

/// Results of a hunt so far.
#[derive(Clone, Debug, Default)]
pub struct ShellHuntTally {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that were run twice with the same event log.
    pub repeated: u64,
    /// Sum of the seconds that passed in the worlds.
    pub seconds: f64,
    /// Sum of the coverage.
    pub coverage: Coverage,
    /// Failed seeds, by seed.
    pub failures: Vec<ShellFailedSeed>,
}

/// Last words of a process.
#[derive(Clone, Debug, PartialEq)]
struct ProcessResult {
    good: bool,
    hash: Option<String>,
    seconds: f64,
    coverage: Coverage,
    description: String,
}

/// Result of a seed.
struct SeedResult {
    seconds: f64,
    coverage: Coverage,
    failure: Option<ShellFailedSeed>,
}

/// Runs seeds until all are run, one has failed, or `go_on` returns false. `progress` is called
/// after each seed.
///
/// # Errors
/// If a process cannot be started or its log cannot be written.
pub fn hunt(
    plan: &ShellHuntPlan,
    go_on: impl Fn() -> bool + Sync,
    mut progress: impl FnMut(&ShellHuntTally),
) -> io::Result<ShellHuntTally> {
    fs::create_dir_all(&plan.out)?;
    let program = std::env::current_exe()?;
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let error = Mutex::new(None);
    let (results, tally) = mpsc::channel();
    let all = thread::scope(|scope| {
        for _ in 0..plan.jobs.clamp(1, JOBS) {
            let results = results.clone();
            let (next, stop, go_on, error, program) = (&next, &stop, &go_on, &error, &program);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && go_on() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= plan.seeds {
                        break;
                    }
                    let twice = index == 0 || plan.check_determinism;
                    match try_seed(program, plan, plan.first.wrapping_add(index), twice) {
                        Ok(seed_result) => {
                            if seed_result.failure.is_some() && !plan.keep_going {
                                stop.store(true, Ordering::Relaxed);
                            }
                            if results.send((seed_result, twice)).is_err() {
                                break;
                            }
                        }
                        Err(failed) => {
                            stop.store(true, Ordering::Relaxed);
                            *error.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
                        }
                    }
                }
            });
        }
        drop(results);
        let mut all = ShellHuntTally::default();
        for (SeedResult { seconds, coverage, failure }, twice) in tally {
            all.seeds += 1;
            all.coverage.merge(&coverage);
            all.repeated += u64::from(twice && failure.is_none());
            all.seconds += seconds;
            all.failures.extend(failure);
            all.failures.sort_by_key(|failure| failure.seed.wrapping_sub(plan.first));
            progress(&all);
        }
        all
    });
    match error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(all),
    }
}

/// Runs a seed, perhaps twice.
fn try_seed(program: &Path, plan: &ShellHuntPlan, seed: u64, twice: bool) -> io::Result<SeedResult> {
    let log = plan.out.join(format!("shell-seed-{seed}.log"));
    let result = run(program, plan, seed, &log, false)?;
    let seed_result = |result: ProcessResult, description: Option<String>| SeedResult {
        seconds: result.seconds,
        coverage: result.coverage,
        failure: description.map(|description| ShellFailedSeed {
            seed,
            guarantee: broken(&description),
            description,
            log: log.clone(),
        }),
    };
    if !result.good {
        // Runs the seed once more with a trace: the result is the same if the seed decides the run.
        let again = run(program, plan, seed, &log, true)?;
        let differs = if again.hash == result.hash { "" } else { " (and its second run differed)" };
        let description = format!("{}{differs}", result.description);
        return Ok(seed_result(result, Some(description)));
    }
    if twice {
        let again = run(program, plan, seed, &log, false)?;
        if again.hash != result.hash {
            let or_none = |result: &ProcessResult| result.hash.clone().unwrap_or_else(|| "none".to_owned());
            let description =
                format!("not deterministic: event logs {} and {}", or_none(&result), or_none(&again));
            return Ok(seed_result(result, Some(description)));
        }
    }
    fs::remove_file(&log)?;
    Ok(seed_result(result, None))
}

/// Runs a seed in a process of its own.
fn run(
    program: &Path,
    plan: &ShellHuntPlan,
    seed: u64,
    log: &Path,
    trace: bool,
) -> io::Result<ProcessResult> {
    let file = File::create(log)?;
    let mut command = Command::new(program);
    command.args(["replay", "--world", "shell", &seed.to_string()]);
    if let Some(plant) = plan.plant {
        command.args(["--plant", &plant_name(plant)]);
    }
    if trace {
        command.arg("--trace");
    }
    let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if waited >= HANGS_AFTER {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(CHECK_INTERVAL);
        waited += CHECK_INTERVAL;
    };
    Ok(process_result(&String::from_utf8_lossy(&fs::read(log)?), status))
}

/// Finds the last words in the output of a process.
fn process_result(log: &str, status: Option<ExitStatus>) -> ProcessResult {
    let line = log.lines().rev().find(|line| line.contains(HASH_MARK));
    let hash = line.and_then(|line| Some(line.split_once(HASH_MARK)?.1.trim().to_owned()));
    let seconds = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    let description = match status {
        None => format!("no end after {} s of real time", HANGS_AFTER.as_secs()),
        Some(_) => {
            let telling = |line: &&str| line.starts_with("broken:") || line.contains("panicked at");
            let mut lines = log.lines().skip_while(|line| !telling(line));
            let first = lines.next().unwrap_or("the process failed without a word").to_owned();
            // The message of a panic is on the line after its place.
            if first.contains("panicked at") {
                format!("{first} {}", lines.next().unwrap_or(""))
            } else {
                first
            }
        }
    };
    let (good, coverage) = (status.is_some_and(|status| status.success()), coverage(log));
    ProcessResult { good, hash, seconds, coverage, description }
}

/// Returns the guarantee that a process reported as broken.
fn broken(description: &str) -> Option<Guarantee> {
    let said = description.strip_prefix("broken: ")?;
    Guarantee::ALL.into_iter().find(|guarantee| said.starts_with(&format!("{guarantee}: ")))
}

/// Returns the marks that a process printed.
fn coverage(log: &str) -> Coverage {
    let mut coverage = Coverage::default();
    let Some((_, printed)) = log.rsplit_once(COVERAGE_MARK) else { return coverage };
    for mark in MARKS {
        // Two spaces precede a mark. Words inside the name of another mark follow one space only.
        let count = printed.split_once(&format!("  {mark:<24}")).and_then(|(_, rest)| rest.get(..9));
        coverage.add(mark, count.and_then(|count| count.trim().parse().ok()).unwrap_or(0));
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Violation;

    #[test]
    fn last_words_are_understood() {
        let result = process_result("12.5 s of the world's time, event log 00ff\nbroken: G1 (x): y\n", None);
        assert_eq!((result.hash.as_deref(), result.seconds, result.good), (Some("00ff"), 12.5, false));
    }

    #[test]
    fn the_guarantee_that_a_process_names_is_known() {
        for guarantee in Guarantee::ALL {
            let violation = Violation { guarantee, description: "it: broke".to_owned() };
            assert_eq!(broken(&format!("broken: {violation} (at 1.000000 s)")), Some(guarantee));
        }
        assert_eq!(broken("thread 'main' panicked at x.rs:1:1: G1"), None);
    }

    #[test]
    fn printed_marks_are_read_again() {
        let mut visited = Coverage::default();
        MARKS.iter().zip(1..).for_each(|(mark, count)| visited.add(mark, count));
        assert_eq!(coverage(&format!("a trace\n{COVERAGE_MARK}\n{visited}\nthe end\n")), visited);
    }
}
