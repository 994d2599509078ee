//! Guarantees that planted bugs break.

use skirmish_core::plant::Plant;

use crate::oracle::Guarantee;

/// Returns the guarantees that a planted bug breaks. A breach of one of them catches the bug. A
/// breach of another guarantee does not show that the bug's oracle works.
#[must_use]
pub const fn broken_by(plant: Plant) -> &'static [Guarantee] {
    match plant {
        Plant::EpochReused => &[Guarantee::Order],
        Plant::AcknowledgedUnlogged
        | Plant::AckedUnstored
        | Plant::NamingAlone
        | Plant::DropAssumed
        | Plant::NamedBehind => &[Guarantee::Kept],
        Plant::DuplicateApplied => &[Guarantee::Once],
        Plant::ResentBackwards => &[Guarantee::Fifo],
        Plant::GapUnannounced | Plant::ResumeOffByOne | Plant::GapUnpulled => &[Guarantee::Gaps],
        Plant::LeaseAssumed | Plant::ClaimUncompared | Plant::EpochUncompared | Plant::GenerationIgnored => {
            &[Guarantee::Primary]
        }
        Plant::OldConnectionWrites
        | Plant::SessionEpochUncompared
        | Plant::DialUncompared
        | Plant::KeepOverridden => &[Guarantee::Fence],
        Plant::UnknownIsFailure
        | Plant::MatcherUnfenced
        | Plant::TicketUncompared
        | Plant::TicketForgotten
        | Plant::SearchUnnumbered
        | Plant::SearchReopened
        | Plant::LapseIgnored
        | Plant::AbsentMatched
        | Plant::LeaveUnheard
        | Plant::LeaveForgotten
        | Plant::JoinUnmarked => &[Guarantee::Match],
        Plant::ArrivalWins | Plant::TombstoneForgotten => &[Guarantee::Convergence],
        Plant::Unconflated | Plant::SlowReaderStalls | Plant::LatestUnbounded | Plant::LinkQueueUncapped => {
            &[Guarantee::Bounded]
        }
        Plant::HeartbeatBlind
        | Plant::BackoffForever
        | Plant::WatchFromNow
        | Plant::RelayForgotten
        | Plant::HoldIgnored
        | Plant::DeadFollowed
        | Plant::NoticeUnwatched
        | Plant::TimeoutsFirst
        | Plant::ClientBlind
        | Plant::SearchForgotten
        | Plant::NoShowKept
        | Plant::RefusalIgnored
        | Plant::BacklogPunished
        | Plant::OrphanKept
        | Plant::CycleAllowed => &[Guarantee::Liveness],
        Plant::ClockUncompared => &[Guarantee::Clocks],
        Plant::JoinRaceTold => &[Guarantee::Joins],
    }
}

/// Simulation whose seeds find a planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simulation {
    /// The machine world.
    World,
    /// The broadcast tree.
    Tree,
}

/// Returns the simulation that has the code of a planted bug.
#[must_use]
pub const fn simulation(plant: Plant) -> Simulation {
    match plant {
        Plant::GapUnpulled | Plant::OrphanKept | Plant::CycleAllowed => Simulation::Tree,
        _ => Simulation::World,
    }
}

/// Returns the numbers of those guarantees as a text.
#[must_use]
pub fn codes(plant: Plant) -> String {
    broken_by(plant).iter().map(|guarantee| guarantee.code()).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_docs_of_a_plant_say_that_it_breaks_is_what_it_breaks() {
        let source = include_str!("../../core/src/base/plant.rs");
        for plant in Plant::ALL {
            let before = source.split_once(&format!("    {plant:?},\n")).map(|(before, _)| before);
            let said = before.and_then(|before| before.rsplit_once('(')?.1.split_once(").\n"));
            assert_eq!(said.map(|(said, _)| said), Some(codes(plant).as_str()), "{plant:?}");
        }
    }
}
